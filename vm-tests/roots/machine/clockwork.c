/* A daemon made of time: what it waits for, what it has counted, and what its clocks say. Answers any connection with
 * lines of NAME VALUE; answers only, so that asking changes nothing. Two threads, a child, an absolute timer descriptor,
 * a POSIX timer that ticks every second.
 *
 * kept: must be the same in the same life. now: checked against one another by the runner. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FAR_S = 100000 };

static volatile sig_atomic_t ticks;
static pid_t waiter_tid;
static timer_t ticker;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static long long now_ms(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now))
		die("clock_gettime");
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void tick(int signal)
{
	(void)signal;
	ticks += 1 + timer_getoverrun(ticker);
}

static void *wait_for_ever(void *unused)
{
	waiter_tid = syscall(SYS_gettid);
	for (;;)
		pause();
	return unused;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct itimerspec far = { { 0, 0 }, { 0, 0 } }, every = { { 1, 0 }, { 1, 0 } };
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN };
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };
	unsigned long long instance;
	long long start_mono, start_boot;
	int server, far_timer, on = 1;
	pthread_t waiter;
	pid_t child;

	if (argc != 2)
		return 2;
	if (getrandom(&instance, sizeof(instance), 0) != sizeof(instance))
		die("getrandom");
	child = fork();
	if (child < 0)
		die("fork");
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	if (pthread_create(&waiter, NULL, wait_for_ever, NULL))
		die("pthread_create");
	while (!__atomic_load_n(&waiter_tid, __ATOMIC_SEQ_CST))
		usleep(1000);
	sigaction(SIGRTMIN, &action, NULL);
	start_mono = now_ms(CLOCK_MONOTONIC);
	start_boot = now_ms(CLOCK_BOOTTIME);
	far_timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	far.it_value.tv_sec = start_mono / 1000 + FAR_S;
	if (far_timer < 0 || timerfd_settime(far_timer, TFD_TIMER_ABSTIME, &far, NULL))
		die("timerfd");
	if (timer_create(CLOCK_MONOTONIC, &event, &ticker) || timer_settime(ticker, 0, &every, NULL))
		die("timer_create");
	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_port = htons(atoi(argv[1]));
	if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(server, (struct sockaddr *)&address, sizeof(address)) || listen(server, 16))
		die("listening");
	/* A file of its own in the private /tmp and one in /run: both are gone after a boot unless they are brought back. */
	close(mkstemp((char[]) { "/tmp/clockwork-XXXXXX" }));
	for (;;) {
		int peer = accept(server, NULL, NULL);
		struct itimerspec left;
		struct pollfd due = { far_timer, POLLIN, 0 };
		char text[512];
		int length;

		if (peer < 0)
			continue;
		timerfd_gettime(far_timer, &left);
		length = snprintf(text, sizeof(text),
				  "kept instance %016llx\nkept pid %d\nkept child %d %d\nkept thread %d\n"
				  "kept started %lld %lld\nkept due %d\nnow mono %lld\nnow boot %lld\nnow ticks %d\nnow left %lld\n",
				  instance, getpid(), child, waitpid(child, NULL, WNOHANG), waiter_tid, start_mono,
				  start_boot, poll(&due, 1, 0), now_ms(CLOCK_MONOTONIC), now_ms(CLOCK_BOOTTIME), (int)ticks,
				  left.it_value.tv_sec * 1000LL + left.it_value.tv_nsec / 1000000);
		if (write(peer, text, length) != length)
			fprintf(stderr, "a client went away\n");
		close(peer);
	}
}
