/*
 * The guest of the recorder: the only program of its initial file system. As process 1 it prepares the kernel and
 * runs every case that /cases names, each in a process of its own; that process lays out memory, places threads on
 * the other CPUs, and makes one system call on CPU 0 between two markers of the trace. The trace goes to the
 * second serial line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "guest.h"

#define CPUS 4
#define ROUNDS 10

/* ---- threads on other CPUs ---- */

enum { SETS_UP, TOUCH, SETTLE, LEAVE, OVER };

static struct thread {
	int cpu, sleeps;
	pid_t tid;
	volatile int reached, word, woken, leaves;
} threads[CPUS];
static int thread_count;
static volatile int phase;

static void *helper(void *argument)
{
	struct thread *thread = argument;
	struct sched_param first = { .sched_priority = 1 };

	pin(thread->cpu);
	thread->tid = syscall(SYS_gettid);
	while (phase < TOUCH)
		relax();
	kind->touch();
	if (flags & WITH_OTHERS)
		write_at(OTHERS, MOVED_BEFORE);
	thread->reached = TOUCH;
	while (phase < SETTLE)
		relax();
	if (thread->sleeps) {
		/* Who is woken shall run at once, and nobody else until the case is over. */
		sched_setscheduler(0, SCHED_FIFO, &first);
		thread->reached = SETTLE;
		while (!thread->word)
			syscall(SYS_futex, &thread->word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
		thread->woken = 1;
	}
	thread->reached = SETTLE;
	while (phase < OVER && !thread->leaves)
		relax();
	syscall(SYS_exit, 0);
	return NULL;
}

static void start_threads(const char *configuration)
{
	int last = *configuration == 'm' ? 3 : *configuration == 'o' && configuration[1] == 'n' ? 0 :
		   configuration[1] - '0';

	for (int cpu = 1; cpu <= last; cpu++) {
		struct thread *thread = &threads[thread_count++];
		pthread_t handle;

		thread->cpu = cpu;
		thread->sleeps = *configuration == 'l' || *configuration == 'o' || (*configuration == 'm' && cpu > 1);
		if (pthread_create(&handle, NULL, helper, thread))
			die("pthread_create");
	}
}

static void all_reach(int where)
{
	phase = where;
	for (int n = 0; n < thread_count; n++)
		while (threads[n].reached < where)
			relax();
}

/* Until the kernel says that the thread sleeps. */
static void sleeps_now(struct thread *thread)
{
	char path[64], text[256] = "", *end;
	int file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", thread->tid);
	do {
		usleep(2000);
		file = open(path, O_RDONLY);
		text[read(file, text, sizeof(text) - 1)] = 0;
		close(file);
		end = strrchr(text, ')');
	} while (!end || end[2] != 'S');
}

static void wake(struct thread *thread)
{
	thread->word = 1;
	syscall(SYS_futex, &thread->word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	while (!thread->woken)
		relax();
}

static void leave(struct thread *thread)
{
	thread->leaves = 1;
	if (thread->sleeps)
		wake(thread);
	while (!syscall(SYS_tgkill, getpid(), thread->tid, 0))
		relax();
}

/* ---- other processes ---- */

static struct other {
	pid_t pid;
	int to, from;
} other;

static struct other start(const char *role, const char *first, const char *second)
{
	int to[2], from[2];
	struct other made;

	if (pipe(to) || pipe(from))
		die("pipe");
	made.pid = fork();
	if (!made.pid) {
		dup2(to[0], 3);
		dup2(from[1], 4);
		execl("/init", "guest", role, first, second, NULL);
		_exit(1);
	}
	made.to = to[1];
	made.from = from[0];
	return made;
}

void tell(int to)
{
	if (write(to, "", 1) != 1)
		die("write");
}

static void say(int file, const char *text)
{
	if (write(file, text, strlen(text)) < 0)
		die(text);
}

void hear(int from)
{
	char byte;

	if (read(from, &byte, 1) != 1)
		die("another process");
}

/* As many processes as the name says hand a word round on CPU 1, a few times; the last one tells. */
static int ring_in, ring_out;
static pid_t ring[64];

void make_ring(void)
{
	int made[64][2], back[2];

	for (size_t n = 0; n < number; n++)
		if (pipe(made[n]))
			die("pipe");
	if (pipe(back))
		die("pipe");
	for (size_t n = 0; n < number; n++) {
		ring[n] = fork();
		if (!ring[n]) {
			pin(1);
			own_pages();
			for (int round = 0;; round++) {
				hear(made[n][0]);
				if (n == number - 1 && round == ROUNDS)
					tell(back[1]);
				else
					tell(made[(n + 1) % number][1]);
			}
		}
	}
	ring_out = made[0][1];
	ring_in = back[0];
	/* Once round, so that each has run there. */
	own_pages();
}

void go_round(void)
{
	tell(ring_out);
	hear(ring_in);
}

static void end_ring(void)
{
	for (int n = 0; n < 64 && ring[n]; n++)
		kill(ring[n], SIGKILL);
}

/* A process of its own: waits for a word, does its part, says so. */
static int role(char **argv)
{
	if (!strcmp(argv[1], "spins") || !strcmp(argv[1], "maps")) {
		pin(argv[1][0] == 's' ? atoi(argv[2]) : 3);
		hear(3);
		if (argv[1][0] == 'm') {
			map_tmpfs(AREA, atoi(argv[2]), MAP_SHARED);
			read_at(AREA, atoi(argv[2]));
		}
		tell(4);
		for (;;)
			relax();
	}
	pin(0);
	pages = atoi(argv[2]);
	list_pages(AREA, pages, PAGE);
	tell(4);
	hear(3);
	if (call_on_another(argv[1], atoi(argv[3])))
		die(argv[1]);
	tell(4);
	pause();
	return 0;
}

/* ---- one case ---- */

static void run_case(const char *name, const char *configuration)
{
	int mark = open(TRACING "trace_marker", O_WRONLY), on = open(TRACING "tracing_on", O_WRONLY);
	int mixed = *configuration == 'm', first = mixed ? 2 : 1, spinners = 0;
	struct other spinning[CPUS];
	char count[16], pid[16];

	pin(0);
	if (!find_operation(name))
		die(name);
	snprintf(count, sizeof(count), "%zu", number);
	snprintf(pid, sizeof(pid), "%d", getpid());
	if (flags & CALLED_BY_ANOTHER) {
		other = start(call->name, count, pid);
		hear(other.from);
	} else if (flags & MAPPED_ELSEWHERE) {
		other = start("maps", count, "");
	}
	/* On CPU 2, or on every CPU where a thread sleeps. */
	if (mixed || (*configuration == 'o' && configuration[1] != 'n'))
		for (; spinners < (mixed ? 1 : configuration[1] - '0'); spinners++) {
			char cpu[2] = { '0' + first + spinners, 0 };

			spinning[spinners] = start("spins", cpu, "");
		}

	alarm(120);
	kind->set_up();
	if (flags & WITH_OTHERS) {
		map_anonymous(OTHERS, MOVED_BEFORE);
		fill_at(OTHERS, MOVED_BEFORE);
	}
	if (flags & MAPPED_ELSEWHERE) {
		tell(other.to);
		hear(other.from);
	}
	start_threads(configuration);
	all_reach(TOUCH);
	prepare();
	all_reach(SETTLE);
	for (int n = 0; n < thread_count; n++)
		if (threads[n].sleeps)
			sleeps_now(&threads[n]);
	for (int n = 0; n < spinners; n++) {
		tell(spinning[n].to);
		hear(spinning[n].from);
	}
	if (flags & THREADS_GONE)
		for (int n = 0; n < thread_count; n++)
			leave(&threads[n]);
	usleep(30000);
	say(on, "1");
	say(mark, "op");
	if (flags & EXITS)
		_exit(0);
	if (flags & CALLED_BY_ANOTHER) {
		tell(other.to);
		hear(other.from);
	} else if (flags & A_THREAD_EXITS) {
		leave(&threads[0]);
	} else {
		call->call();
	}
	say(mark, "wake");
	for (int n = 0; n < thread_count; n++)
		if (threads[n].sleeps && !threads[n].woken)
			wake(&threads[n]);
	say(mark, "end");
	say(on, "0");
	phase = OVER;
	if (child)
		kill(child, SIGKILL);
	if (other.pid)
		kill(other.pid, SIGKILL);
	for (int n = 0; n < spinners; n++)
		kill(spinning[n].pid, SIGKILL);
	end_ring();
	if (failed)
		printf("guest: %s %s: %s: %s\n", name, configuration, failed, strerror(errno));
	exit(failed != NULL);
}

/* ---- process 1 ---- */

static void copy(const char *from, const char *to)
{
	static char block[1 << 16];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY);
	ssize_t got;

	while ((got = read(in, block, sizeof(block))) > 0)
		if (write(out, block, got) != got)
			die(to);
	close(in);
	close(out);
}

/* The number behind `key` in a file of the kernel's, -1 if it is not there. */
long read_number(const char *path, const char *key)
{
	static char text[1 << 14];
	int file = open(path, O_RDONLY);
	ssize_t length = 0, got;
	char *found;

	while (file >= 0 && (got = read(file, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	close(file);
	text[length] = 0;
	found = strstr(text, key);
	return found ? atol(found + strlen(key)) : -1;
}

/* A device to swap to: the last ten bytes of its first page say so, and how many pages there are. */
static void make_swap(const char *path)
{
	static union { char bytes[PAGE]; unsigned int words[PAGE / 4]; } head;
	int file = open(path, O_WRONLY);

	head.words[256] = 1;
	head.words[257] = (16 << 20) / PAGE - 1;
	memcpy(head.bytes + PAGE - 10, "SWAPSPACE2", 10);
	if (write(file, &head, PAGE) != PAGE)
		die(path);
	close(file);
}

/* ksmd works on CPU 0. */
static void pin_ksmd(void)
{
	char path[32], name[32] = "";
	cpu_set_t first;

	CPU_ZERO(&first);
	CPU_SET(0, &first);
	for (int pid = 2; pid < 400; pid++) {
		int file;

		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		file = open(path, O_RDONLY);
		if (file < 0)
			continue;
		if (read(file, name, sizeof(name) - 1) == 5 && !memcmp(name, "ksmd", 4) &&
		    sched_setaffinity(pid, sizeof(first), &first))
			die("ksmd");
		close(file);
	}
}

static void prepare_kernel(void)
{
	mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755), mkdir("/ext4", 0755), mkdir("/tmpfs", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	if (mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL))
		die("tracefs");
	mount("tmpfs", "/tmpfs", "tmpfs", 0, NULL);
	load_module("/brd.ko", "rd_nr=2 rd_size=32768");
	copy("/ext4.image", "/dev/ram0");
	if (mount("/dev/ram0", "/ext4", "ext4", 0, NULL))
		die("ext4");
	if (mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL))
		die("debugfs");
	make_swap("/dev/ram1");
	pin_ksmd();
	write_to("/sys/kernel/mm/ksm/pages_to_scan", "1000");
	write_to("/sys/kernel/debug/sched/numa_balancing/scan_delay_ms", "1");
	write_to("/sys/kernel/debug/sched/numa_balancing/scan_period_min_ms", "10");
	write_to("/sys/kernel/debug/sched/numa_balancing/scan_period_max_ms", "100");
	write_to("/proc/sys/kernel/numa_balancing", "0");
	write_to("/proc/sys/kernel/sched_rt_runtime_us", "-1");
	write_to("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	write_to("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0");
	write_to("/sys/kernel/mm/lru_gen/enabled", "0");
	write_to(TRACING "tracing_on", "0");
	/* In a starved guest many events have one time; this clock keeps their order. */
	write_to(TRACING "trace_clock", "counter");
	write_to(TRACING "buffer_size_kb", "4096");
	/* struct flush_tlb_info: mm, start, end, new_tlb_gen, initiating_cpu (u32), stride_shift, freed_tables. */
	write_to(TRACING "kprobe_events",
		 "p:ranged flush_tlb_mm_range start=%si end=%dx stride=%cx:u8 tables=%r8:u8\n"
		 "p:batched arch_tlbbatch_flush\n"
		 "p:asked flush_tlb_func by=+32(%di):u32\n"
		 "p:switched switch_mm_irqs_off next=%si task=%dx\n");
	write_to(TRACING "events/kprobes/enable", "1");
	write_to(TRACING "events/tlb/tlb_flush/enable", "1");
}

/* What was traced, without the comments and up to the field that says on which CPU. */
static void hand_over(int line)
{
	static char text[512];
	FILE *trace = fopen(TRACING "trace", "r");

	while (trace && fgets(text, sizeof(text), trace)) {
		char *cpu = strchr(text, '[');

		if (*text != '#' && cpu)
			to_line(line, cpu, strlen(cpu));
	}
	if (trace)
		fclose(trace);
	write_to(TRACING "trace", "");
}

static void run_all(int line)
{
	static char text[256];
	FILE *cases = fopen("/cases", "r");
	int mark = open(TRACING "trace_marker", O_WRONLY);
	char name[64], configuration[16];

	while (cases && fgets(text, sizeof(text), cases)) {
		int status, length;
		pid_t pid;

		if (sscanf(text, "%63s %15s", name, configuration) != 2)
			continue;
		length = snprintf(text, sizeof(text), "CASE %s %s\n", name, configuration);
		to_line(line, text, length);
		pid = fork();
		if (!pid) {
			execl("/init", "guest", "case", name, configuration, NULL);
			_exit(1);
		}
		waitpid(pid, &status, 0);
		/* What a case leaves in the kernel. */
		write_to("/sys/kernel/mm/ksm/run", "2");
		write_to("/sys/kernel/mm/ksm/run", "0");
		write_to("/proc/sys/kernel/numa_balancing", "0");
		swapoff("/dev/ram1");
		/* Of a process that has exited this is the end; else tracing is off already, and takes no mark. */
		if (write(mark, "end", 3) == 3)
			write_to(TRACING "tracing_on", "0");
		/* Who has exited did not tell the others to. */
		kill(-1, SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		hand_over(line);
		length = snprintf(text, sizeof(text), "DONE %d\n", status);
		to_line(line, text, length);
		printf("%s %s%s\n", name, configuration, status ? " FAILED" : "");
	}
}

int main(int argc, char **argv)
{
	int line;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (getpid() != 1) {
		if (argc == 4 && !strcmp(argv[1], "case"))
			run_case(argv[2], argv[3]);
		return argc == 4 ? role(argv) : 1;
	}
	prepare_kernel();
	pin(0);
	line = second_line();
	run_all(line);
	to_line(line, "OVER\n", 5);
	tcdrain(line);
	sync();
	reboot(RB_AUTOBOOT);
	return 1;
}
