/* When does each server of this machine answer first? Asks all of them again and again, each from a process of its own,
 * until all have answered right once.
 *
 *	first-answers SECONDS (PORT SAY HAS)...		SAY and HAS in hexadecimal
 *
 * Prints "PORT MILLISECONDS" for each, on CLOCK_MONOTONIC, which begins with the kernel, or "PORT none"; and "peak KIB",
 * the most memory that was not available meanwhile. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Between two attempts: emulated, each costs about a millisecond. */
enum { PAUSE_US = 20000, ANSWER_S = 10, MAX_SERVERS = 32, MAX_ANSWER = 65536 };

static long long now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static size_t from_hex(const char *hex, char *to, size_t room)
{
	size_t length = 0;
	unsigned byte;

	while (length < room && sscanf(hex + 2 * length, "%2x", &byte) == 1)
		to[length++] = byte;
	return length;
}

static int ask(int port, const char *say, size_t say_length, const char *has, size_t has_length)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct timeval bound = { ANSWER_S, 0 };
	static char heard[MAX_ANSWER];
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), found = 0;
	size_t length = 0;
	ssize_t n = 1;

	address.sin_port = htons(port);
	setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof(bound));
	setsockopt(server, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof(bound));
	if (connect(server, (struct sockaddr *)&address, sizeof(address)) ||
	    send(server, say, say_length, MSG_NOSIGNAL) != (ssize_t)say_length)
		n = 0;
	while (n > 0 && !found && length < sizeof(heard)) {
		n = recv(server, heard + length, sizeof(heard) - length, 0);
		length += n > 0 ? n : 0;
		found = memmem(heard, length, has, has_length) != NULL;
	}
	close(server);
	return found;
}

static void ask_until_answered(char **words, volatile long long *answered_us)
{
	char say[1024], has[256];
	size_t say_length = from_hex(words[1], say, sizeof(say)), has_length = from_hex(words[2], has, sizeof(has));

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!ask(atoi(words[0]), say, say_length, has, has_length))
		usleep(PAUSE_US);
	*answered_us = now_us();
	_exit(0);
}

static long used_kib(void)
{
	long total = 0, available = 0;
	char line[256];
	FILE *file = fopen("/proc/meminfo", "r");

	while (file && fgets(line, sizeof(line), file)) {
		sscanf(line, "MemTotal: %ld", &total);
		sscanf(line, "MemAvailable: %ld", &available);
	}
	if (file)
		fclose(file);
	return total - available;
}

int main(int argc, char **argv)
{
	int count = (argc - 2) / 3, left = count;
	volatile long long *answered_us;
	long long end;
	long peak_kib = 0;

	if (argc < 5 || (argc - 2) % 3 || count > MAX_SERVERS)
		return 2;
	answered_us = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (answered_us == MAP_FAILED)
		return 1;
	end = now_us() + atoi(argv[1]) * 1000000LL;
	for (int i = 0; i < count; i++) {
		pid_t child = fork();

		if (child < 0)
			return 1;
		if (child == 0)
			ask_until_answered(argv + 2 + 3 * i, answered_us + i);
	}
	while (left && now_us() < end) {
		long used = used_kib();

		peak_kib = used > peak_kib ? used : peak_kib;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			left--;
		if (left)
			usleep(PAUSE_US);
	}
	for (int i = 0; i < count; i++)
		if (answered_us[i])
			printf("%s %.3f\n", argv[2 + 3 * i], answered_us[i] / 1000.0);
		else
			printf("%s none\n", argv[2 + 3 * i]);
	printf("peak %ld\n", peak_kib);
	return 0;
}
