/* The runner's hand inside a machine without a network: reads requests from a virtio port, runs commands and talks to
 * local servers, answers with exit code and output. One request at a time.
 *
 *	hello NONCE			hello NONCE BOOT_ID
 *	run SECONDS LENGTH, then bytes:	done STATUS OUT ERR, then both outputs
 *		the arguments, each ended by a 0 byte; STATUS is an exit code, 1000 + a signal, or 2000 when time was up
 *	ask PORT LENGTH, then bytes:	done STATUS OUT 0, then what the server answers until it closes; STATUS is an errno
 *
 * Anything else is skipped up to the end of its line: what a reset has cut in half must not count. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_REQUEST = 1 << 20, MAX_WORDS = 256, MAX_LINE = 200, TIME_IS_UP = 2000, BY_SIGNAL = 1000, ANSWER_MS = 10000 };

struct bytes {
	char *data;
	size_t length;
};

static int port = -1;
static char boot_id[64];

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void append(struct bytes *to, const char *data, size_t length)
{
	to->data = realloc(to->data, to->length + length + 1);
	if (!to->data)
		die("realloc");
	memcpy(to->data + to->length, data, length);
	to->length += length;
	to->data[to->length] = 0;
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Without a runner at the other end reading gives 0 at once. */
static void read_port(char *data, size_t length)
{
	while (length) {
		ssize_t n = read(port, data, length);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			die("reading from the port");
		if (n <= 0) {
			usleep(20000);
			continue;
		}
		data += n;
		length -= n;
	}
}

static void write_port(const char *data, size_t length)
{
	while (length) {
		ssize_t n = write(port, data, length);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return;
		if (n <= 0) {
			usleep(20000);
			continue;
		}
		data += n;
		length -= n;
	}
}

static void answer(int status, struct bytes *out, struct bytes *err)
{
	char line[MAX_LINE];
	int length = snprintf(line, sizeof(line), "done %d %zu %zu\n", status, out->length, err->length);

	write_port(line, length);
	write_port(out->data, out->length);
	write_port(err->data, err->length);
	free(out->data);
	free(err->data);
}

/* Takes what is there; returns 0 at the end of the file. */
static int drain(int fd, struct bytes *into)
{
	char buffer[16384];
	ssize_t n = read(fd, buffer, sizeof(buffer));

	if (n > 0)
		append(into, buffer, n);
	return n > 0 || (n < 0 && (errno == EINTR || errno == EAGAIN));
}

static pid_t start(char **words, int out, int err)
{
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (child)
		return child;
	setsid();
	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(out, 1);
	dup2(err, 2);
	execvp(words[0], words);
	dprintf(2, "%s: %s\n", words[0], strerror(errno));
	_exit(127);
}

/* Ends with the command, not with the output: what a command leaves behind may hold its pipes. */
static void run(char *request, size_t length, long long bound_ms)
{
	struct bytes out = { 0 }, err = { 0 };
	char *words[MAX_WORDS + 1];
	int count = 0, pipes[2][2], status = 0, ended = 0;
	long long end = now_ms() + bound_ms;
	pid_t child;

	for (char *at = request; at < request + length && count < MAX_WORDS; at += strlen(at) + 1)
		words[count++] = at;
	words[count] = NULL;
	if (!count || pipe2(pipes[0], O_CLOEXEC) || pipe2(pipes[1], O_CLOEXEC))
		die("starting a command");
	child = start(words, pipes[0][1], pipes[1][1]);
	close(pipes[0][1]);
	close(pipes[1][1]);
	while (!ended) {
		struct pollfd ready[2] = { { pipes[0][0], POLLIN, 0 }, { pipes[1][0], POLLIN, 0 } };

		ended = waitpid(child, &status, WNOHANG) == child;
		if (!ended && now_ms() >= end) {
			kill(-child, SIGKILL);
			waitpid(child, NULL, 0);
			status = -1;
			ended = 1;
		}
		/* Everything written before the end is in the pipes now. */
		while (poll(ready, 2, ended ? 0 : 10) > 0) {
			if (ready[0].revents && !drain(pipes[0][0], &out))
				ready[0].fd = -1;
			if (ready[1].revents && !drain(pipes[1][0], &err))
				ready[1].fd = -1;
			if (ready[0].fd < 0 && ready[1].fd < 0)
				break;
		}
		if (!ended && ready[0].fd < 0 && ready[1].fd < 0)
			usleep(2000);
	}
	close(pipes[0][0]);
	close(pipes[1][0]);
	if (status == -1)
		answer(TIME_IS_UP, &out, &err);
	else
		answer(WIFEXITED(status) ? WEXITSTATUS(status) : BY_SIGNAL + WTERMSIG(status), &out, &err);
}

static int talk(int server_port, const char *request, size_t length, struct bytes *out)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval bound = { ANSWER_MS / 1000, 0 };
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), error = 0;
	ssize_t n = 0;

	address.sin_port = htons(server_port);
	setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	if (connect(server, (struct sockaddr *)&address, sizeof(address)))
		error = errno;
	for (size_t done = 0; !error && done < length; done += n > 0 ? n : 0) {
		n = send(server, request + done, length - done, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			error = errno;
	}
	while (!error) {
		char buffer[16384];

		n = recv(server, buffer, sizeof(buffer), 0);
		if (n == 0)
			break;
		if (n > 0)
			append(out, buffer, n);
		else if (errno != EINTR)
			error = errno;
	}
	close(server);
	return error;
}

static void ask(int server_port, const char *request, size_t length)
{
	struct bytes out = { 0 }, err = { 0 };
	int status = talk(server_port, request, length, &out);

	answer(status, &out, &err);
}

static void take_request(const char *line)
{
	static char request[MAX_REQUEST + 1];
	unsigned long long number;
	size_t length;
	char nonce[32], answer_line[MAX_LINE];

	if (sscanf(line, "hello %31s", nonce) == 1) {
		int n = snprintf(answer_line, sizeof(answer_line), "hello %s %s\n", nonce, boot_id);
		write_port(answer_line, n);
		return;
	}
	if (sscanf(line, "%*s %llu %zu", &number, &length) != 2 || length > MAX_REQUEST)
		return;
	read_port(request, length);
	request[length] = 0;
	if (strncmp(line, "run ", 4) == 0)
		run(request, length, number * 1000);
	else
		ask(number, request, length);
}

int main(int argc, char **argv)
{
	int id = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

	if (argc != 2 || id < 0 || read(id, boot_id, sizeof(boot_id) - 1) < 36)
		die("starting");
	boot_id[36] = 0;
	close(id);
	signal(SIGPIPE, SIG_IGN);
	/* udev, which this does not wait for, makes the link. */
	while ((port = open(argv[1], O_RDWR | O_CLOEXEC)) < 0)
		usleep(20000);
	for (;;) {
		char line[MAX_LINE];
		size_t length = 0;

		for (;;) {
			char byte;

			read_port(&byte, 1);
			if (byte == '\n')
				break;
			if (length + 1 < sizeof(line))
				line[length++] = byte;
		}
		line[length] = 0;
		take_request(line);
	}
}
