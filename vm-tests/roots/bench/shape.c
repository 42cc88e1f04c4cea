/*
 * A process of which there is much of one thing: threads, descriptors, areas of memory, or children. At each SIGUSR1 it
 * looks at all of them and creates a file that says how that came out: "ready" first, then "ok N" for the Nth look.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MOST 10000

static int count;
/* Shared with children; each thread or child has a number of its own that goes up. */
static volatile uint64_t *beats;
static int pipes[MOST][2];
static char *memory;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void say(const char *path, const char *text)
{
	char new_path[4096];
	FILE *file;

	snprintf(new_path, sizeof(new_path), "%s.new", path);
	file = fopen(new_path, "we");
	if (!file || fputs(text, file) < 0 || fclose(file) || rename(new_path, path))
		fail(path);
}

static void *beat(void *argument)
{
	const struct timespec pause = { .tv_nsec = 10000000 };

	for (;;) {
		beats[(intptr_t)argument]++;
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void make_threads(void)
{
	pthread_t thread;

	for (intptr_t index = 0; index < count; index++)
		if (pthread_create(&thread, NULL, beat, (void *)index))
			fail("pthread_create");
}

static void make_children(void)
{
	for (intptr_t index = 0; index < count; index++) {
		pid_t child = fork();

		if (child < 0)
			fail("fork");
		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			beat((void *)index);
		}
	}
}

/* All go on, within a second. */
static int all_beat(void)
{
	uint64_t before[MOST];
	int index, tries;

	memcpy(before, (const void *)beats, count * sizeof(*before));
	for (index = 0, tries = 0; index < count && tries < 1000; tries++) {
		usleep(1000);
		while (index < count && beats[index] > before[index])
			index++;
	}
	return index == count;
}

/* Two descriptors each, with a number inside. */
static void make_descriptors(void)
{
	for (int index = 0; index < count / 2; index++)
		if (pipe(pipes[index]) || write(pipes[index][1], &index, sizeof(index)) != sizeof(index))
			fail("pipe");
}

static int all_open(void)
{
	int index, found;

	for (index = 0; index < count / 2; index++)
		if (read(pipes[index][0], &found, sizeof(found)) != sizeof(found) || found != index ||
		    write(pipes[index][1], &index, sizeof(index)) != sizeof(index))
			return 0;
	return 1;
}

/* Every page is an area of its own, because its neighbours are protected in another way. */
static void make_areas(void)
{
	memory = mmap(NULL, (size_t)count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	for (int index = 0; index < count; index++) {
		memcpy(memory + (size_t)index * PAGE, &index, sizeof(index));
		if (index % 2 && mprotect(memory + (size_t)index * PAGE, PAGE, PROT_READ))
			fail("mprotect");
	}
}

static int all_mapped(void)
{
	for (int index = 0; index < count; index++)
		if (memcmp(memory + (size_t)index * PAGE, &index, sizeof(index)))
			return 0;
	return 1;
}

static const struct {
	const char *name;
	void (*make)(void);
	int (*look)(void);
} shapes[] = {
	{ "threads", make_threads, all_beat },
	{ "children", make_children, all_beat },
	{ "descriptors", make_descriptors, all_open },
	{ "areas", make_areas, all_mapped },
};

int main(int argc, char **argv)
{
	unsigned int shape = 0, shape_count = sizeof(shapes) / sizeof(*shapes);
	sigset_t awaited;
	char text[64];
	int signal;

	if (argc != 4) {
		fprintf(stderr, "usage: %s SHAPE COUNT FILE\n", argv[0]);
		return 2;
	}
	count = atoi(argv[2]);
	while (shape < shape_count && strcmp(shapes[shape].name, argv[1]))
		shape++;
	if (shape == shape_count || count < 1 || count > MOST) {
		fprintf(stderr, "%s: no shape, or no count: %s %s\n", argv[0], argv[1], argv[2]);
		return 2;
	}
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGUSR1);
	sigprocmask(SIG_BLOCK, &awaited, NULL);
	beats = mmap(NULL, MOST * sizeof(*beats), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (beats == MAP_FAILED)
		fail("mmap");
	shapes[shape].make();
	say(argv[3], "ready");
	for (int look = 1;; look++) {
		sigwait(&awaited, &signal);
		snprintf(text, sizeof(text), shapes[shape].look() ? "ok %d" : "look %d failed", look);
		say(argv[3], text);
	}
}
