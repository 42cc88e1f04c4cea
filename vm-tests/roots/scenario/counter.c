/* A small daemon: counts in memory and answers GET /state and GET /bump?by=N. One thread, one request at a time. */
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
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

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	unsigned long long instance, count = 0;
	int server, on = 1;

	if (argc != 2) {
		fprintf(stderr, "usage: %s PORT\n", argv[0]);
		return 2;
	}
	address.sin_port = htons(atoi(argv[1]));
	if (getrandom(&instance, sizeof(instance), 0) != sizeof(instance))
		die("getrandom");
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
		int length, peer = accept(server, NULL, NULL);

		if (peer < 0)
			continue;
		if (read_request(peer, request, sizeof(request))) {
			if (sscanf(request, "GET /bump?by=%llu", &by) == 1)
				count += by;
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
