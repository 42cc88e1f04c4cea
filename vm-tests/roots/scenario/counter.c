/* A small daemon: counts in memory and answers GET /state, GET /bump?by=N and GET /clock. One thread, one request at a
 * time. COUNTER_BURN_MS=N: computes for so long before it listens. COUNTER_ARM_MS=N: a timer with an absolute time on
 * the monotonic clock, so long after the start; GET /clock tells when it was due and when it came. COUNTER_WIPED=1: ends
 * itself at a request when it finds memory empty that is wiped on fork, as programs do that keep a random generator there. */
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* Returns 0 when the peer went away before its request was complete. */
static int read_request(int peer, char *buffer, size_t size)
{
	size_t length = 0;

	while (length + 1 < size) {
		ssize_t n = read(peer, buffer + length, size - 1 - length);
		if (n <= 0)
			return 0;
		length += n;
		buffer[length] = 0;
		if (strstr(buffer, "\r\n\r\n"))
			return 1;
	}
	return 0;
}

static long long now_ms(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		die("clock_gettime");
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static long long number(const char *name)
{
	const char *text = getenv(name);

	return text ? atoll(text) : 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	unsigned long long instance, count = 0;
	long long due_ms = 0, came_ms = 0;
	struct pollfd ready[2];
	int server, timer, on = 1;
	char *wiped;

	if (argc != 2) {
		fprintf(stderr, "usage: %s PORT\n", argv[0]);
		return 2;
	}
	address.sin_port = htons(atoi(argv[1]));
	if (getrandom(&instance, sizeof(instance), 0) != sizeof(instance))
		die("getrandom");
	while (now_ms(CLOCK_PROCESS_CPUTIME_ID) < number("COUNTER_BURN_MS"))
		;
	wiped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (wiped == MAP_FAILED || madvise(wiped, 4096, MADV_WIPEONFORK))
		die("mmap");
	*wiped = 1;
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (timer < 0)
		die("timerfd_create");
	if (number("COUNTER_ARM_MS")) {
		struct itimerspec at = { { 0, 0 }, { 0, 0 } };

		due_ms = now_ms(CLOCK_MONOTONIC) + number("COUNTER_ARM_MS");
		at.it_value.tv_sec = due_ms / 1000;
		at.it_value.tv_nsec = due_ms % 1000 * 1000000;
		if (timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL))
			die("timerfd_settime");
	}
	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0)
		die("socket");
	if (setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)))
		die("setsockopt");
	if (bind(server, (struct sockaddr *)&address, sizeof(address)))
		die("bind");
	if (listen(server, 16))
		die("listen");
	for (;;) {
		char request[2048], answer[512];
		unsigned long long by;
		int length, peer;
		uint64_t times;

		ready[0] = (struct pollfd) { .fd = server, .events = POLLIN };
		ready[1] = (struct pollfd) { .fd = timer, .events = POLLIN };
		if (poll(ready, 2, -1) < 0)
			continue;
		if (ready[1].revents && read(timer, &times, sizeof(times)) == sizeof(times))
			came_ms = now_ms(CLOCK_MONOTONIC);
		if (!ready[0].revents)
			continue;
		peer = accept(server, NULL, NULL);
		if (peer < 0)
			continue;
		if (read_request(peer, request, sizeof(request))) {
			if (!*wiped && number("COUNTER_WIPED"))
				abort();
			if (sscanf(request, "GET /bump?by=%llu", &by) == 1)
				count += by;
			if (strncmp(request, "GET /clock", 10) == 0)
				length = snprintf(answer, sizeof(answer),
						  "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
						  "{\"now_ms\": %lld, \"due_ms\": %lld, \"came_ms\": %lld}\n",
						  now_ms(CLOCK_MONOTONIC), due_ms, came_ms);
			else
				length = snprintf(answer, sizeof(answer),
					  "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
					  "{\"pid\": %d, \"instance\": \"%016llx\", \"count\": %llu}\n",
					  getpid(), instance, count);
			if (write(peer, answer, length) != length)
				fprintf(stderr, "a client went away\n");
		}
		close(peer);
	}
}
