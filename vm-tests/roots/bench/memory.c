/*
 * Fills memory with numbers that no two pages share, then, at each SIGUSR1, compares every number and creates a file
 * that says how that came out: "ready" first, then "ok N" for the Nth comparison, or where it went wrong.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* splitmix64: incompressible, and known from its index alone. */
static uint64_t number(uint64_t index)
{
	uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void say(const char *path, const char *text)
{
	char new_path[4096];
	FILE *file;

	snprintf(new_path, sizeof(new_path), "%s.new", path);
	file = fopen(new_path, "we");
	if (!file || fputs(text, file) < 0 || fclose(file) || rename(new_path, path)) {
		perror(path);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	uint64_t *numbers, index, count, comparison;
	sigset_t awaited;
	char text[128];
	int signal;

	if (argc != 3) {
		fprintf(stderr, "usage: %s MIB FILE\n", argv[0]);
		return 2;
	}
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGUSR1);
	sigprocmask(SIG_BLOCK, &awaited, NULL);
	count = strtoull(argv[1], NULL, 10) * (1024 * 1024 / sizeof(*numbers));
	numbers = mmap(NULL, count * sizeof(*numbers), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (numbers == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	for (index = 0; index < count; index++)
		numbers[index] = number(index);
	say(argv[2], "ready");
	for (comparison = 1;; comparison++) {
		sigwait(&awaited, &signal);
		for (index = 0; index < count && numbers[index] == number(index); index++)
			;
		if (index == count)
			snprintf(text, sizeof(text), "ok %" PRIu64, comparison);
		else
			snprintf(text, sizeof(text), "number %" PRIu64 " of %" PRIu64 " is wrong", index, count);
		say(argv[2], text);
	}
}
