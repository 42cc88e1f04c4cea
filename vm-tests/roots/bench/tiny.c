/* A tiny daemon: counts in memory and writes the count over the first eight bytes of a file, about 1000 times a second. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t count;
	int file;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FILE\n", argv[0]);
		return 2;
	}
	file = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (file < 0) {
		perror(argv[1]);
		return 1;
	}
	for (count = 1;; count++) {
		if (pwrite(file, &count, sizeof(count), 0) != sizeof(count)) {
			perror("pwrite");
			return 1;
		}
		nanosleep(&pause, NULL);
	}
}
