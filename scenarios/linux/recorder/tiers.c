/*
 * The other guest of the recorder, the only program of its initial file system: it makes node 1 a lower tier, writes
 * tables that are larger than node 0, and has four threads share lookups in them, as the workload tiering-recorded
 * does. What the kernel counted, and every flush, goes to the second serial line.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "basics.h"

#define BALANCING "/sys/kernel/debug/sched/numa_balancing/"
#define MEMORY_DEVICE "/sys/bus/nd/devices/dax0.0/"
#define THREADS 4
#define MARKS 50
#define TURN_NS 100000L

static int line;
static char *tables, kswapd_path[32];
/* /settings: pages of both tables, lookups of all threads, lookups that a thread takes at once, reads of the grid in
 * each, rounds of a loop after each, and what the lookups are drawn from. */
static unsigned long grid_pages, index_pages, lookups, at_once, grid_reads, work, seed;
static volatile unsigned long taken, arrived;

static void hand_over(const char *what, const char *phase, const char *path)
{
	static char block[1 << 16];
	int file = open(path, O_RDONLY);
	ssize_t got;

	snprintf(block, sizeof(block), "FILE %s %s\n", what, phase);
	to_line(line, block, strlen(block));
	while ((got = read(file, block, sizeof(block))) > 0)
		to_line(line, block, got);
	close(file);
}

/* How long the fast node's kswapd has run. It was bound to the CPUs that there were when it began. */
static void find_kswapd(void)
{
	char name[16] = "";
	cpu_set_t all;
	int pid;

	CPU_ZERO(&all);
	for (int cpu = 0; cpu < THREADS; cpu++)
		CPU_SET(cpu, &all);

	for (pid = 1; strcmp(name, "kswapd0\n"); pid++) {
		char path[32];
		int file;

		if (pid > 4096)
			die("kswapd0");
		snprintf(path, sizeof(path), "/proc/%d/comm", pid);
		file = open(path, O_RDONLY);
		if (file < 0)
			continue;
		name[read(file, name, sizeof(name) - 1)] = 0;
		close(file);
		snprintf(kswapd_path, sizeof(kswapd_path), "/proc/%d/schedstat", pid);
	}
	if (sched_setaffinity(pid - 1, sizeof(all), &all))
		die("kswapd0's CPUs");
}

static void hand_over_counters(const char *phase)
{
	hand_over("vmstat", phase, "/proc/vmstat");
	hand_over("interrupts", phase, "/proc/interrupts");
	hand_over("zoneinfo", phase, "/proc/zoneinfo");
	hand_over("kswapd", phase, kswapd_path);
}

/* memmap= has made node 1 persistent memory: a namespace of it becomes a device of memory, and that memory. */
static void online_lower_tier(void)
{
	load_module("/libnvdimm.ko", "");
	load_module("/nd_e820.ko", "");
	load_module("/dax_pmem.ko", "");
	load_module("/kmem.ko", "");
	write_to("/sys/devices/system/memory/auto_online_blocks", "online_movable");
	write_to(MEMORY_DEVICE "uuid", "5a1d7b4c-2f0e-4b6a-9c3d-8e7f6a5b4c3d");
	write_to(MEMORY_DEVICE "mode", "ram");
	write_to(MEMORY_DEVICE "align", "2097152");
	write_to(MEMORY_DEVICE "namespace", "namespace0.0");
	write_to("/sys/bus/nd/drivers/dax_pmem/bind", "dax0.0");
	write_to("/sys/bus/dax/drivers/kmem/new_id", "dax0.0");
}

/* xorshift64* */
static unsigned long drawn(unsigned long *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545f4914f6cdd1dUL) >> 32;
}

static void read_page(unsigned long page)
{
	(void)*(volatile char *)(tables + page * PAGE);
}

static void look_up(unsigned long *state)
{
	for (unsigned long n = 0; n < grid_reads; n++)
		read_page(drawn(state) % grid_pages);
	read_page(grid_pages + drawn(state) % index_pages);
	for (volatile unsigned long n = 0; n < work; n++)
		;
}

/*
 * QEMU runs one CPU until the next timer of any. One every 100 us on each CPU, a quarter of that apart, lets them
 * take turns after some 25,000 instructions, in the kernel as in user mode; they have no other use.
 */
static int start_timer(int cpu)
{
	struct perf_event_attr attributes = {
		.type = PERF_TYPE_SOFTWARE,
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.size = sizeof(attributes),
		.sample_period = TURN_NS,
	};
	int timer = syscall(SYS_perf_event_open, &attributes, -1, cpu, -1, 0);

	if (timer < 0)
		die("perf_event_open");
	return timer;
}

/*
 * 6.1 waits for another CPU in a loop without a pause and before a timer runs, which QEMU does not leave: so kernels are
 * told to start with one CPU (maxcpus=1).
 */
static void start_cpus(void)
{
	int timer = start_timer(0);

	for (int cpu = 1; cpu < THREADS; cpu++) {
		char path[48];

		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online", cpu);
		write_to(path, "1");
	}
	close(timer);
}

static void start_timers(void)
{
	struct timespec now;

	for (int cpu = 0; cpu < THREADS; cpu++) {
		long begun;

		start_timer(cpu);
		clock_gettime(CLOCK_MONOTONIC, &now);
		begun = now.tv_nsec;
		do
			clock_gettime(CLOCK_MONOTONIC, &now);
		while ((now.tv_nsec - begun + 1000000000) % 1000000000 < TURN_NS / THREADS);
	}
}

static void *look_up_parts(void *cpu)
{
	unsigned long parts = lookups / at_once;

	pin((long)cpu);
	__sync_fetch_and_add(&arrived, 1);
	while (arrived < THREADS)
		relax();
	for (;;) {
		unsigned long part = __sync_fetch_and_add(&taken, 1);
		unsigned long state = (seed << 32) + part * 0x9e3779b97f4a7c15UL + 1;

		if (part >= parts)
			return NULL;
		if (part % (parts / MARKS) == 0)
			write_to(TRACING "trace_marker", "part");
		for (unsigned long n = 0; n < at_once; n++)
			look_up(&state);
	}
}

static void program(void)
{
	pthread_t threads[THREADS];
	size_t pages = grid_pages + index_pages;

	pin(0);
	start_timers();
	tables = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (tables == MAP_FAILED)
		die("mmap");
	for (size_t page = 0; page < pages; page++)
		*(volatile char *)(tables + page * PAGE) = 1;
	hand_over_counters("tables");
	/* The scanner begins with the lookups. */
	write_to("/proc/sys/kernel/numa_balancing", "2");
	write_to(TRACING "trace_marker", "lookups");
	for (long cpu = 0; cpu < THREADS; cpu++)
		if (pthread_create(&threads[cpu], NULL, look_up_parts, (void *)cpu))
			die("pthread_create");
	for (int cpu = 0; cpu < THREADS; cpu++)
		pthread_join(threads[cpu], NULL);
	write_to(TRACING "trace_marker", "over");
	hand_over_counters("lookups");
	exit(0);
}

static void prepare_kernel(const char *scan_mb, const char *period_ms, const char *shortest_ms, const char *longest_ms,
			   const char *hot_ms)
{
	online_lower_tier();
	write_to("/sys/kernel/mm/transparent_hugepage/enabled", "never");
	write_to("/sys/kernel/mm/lru_gen/enabled", "0");
	write_to("/sys/kernel/mm/numa/demotion_enabled", "1");
	write_to("/proc/sys/vm/compaction_proactiveness", "0");
	write_to("/proc/sys/kernel/numa_balancing", "0");
	write_to(BALANCING "scan_size_mb", scan_mb);
	write_to(BALANCING "scan_period_max_ms", longest_ms);
	write_to(BALANCING "scan_period_min_ms", shortest_ms);
	write_to(BALANCING "scan_delay_ms", period_ms);
	write_to(BALANCING "hot_threshold_ms", hot_ms);
	write_to(TRACING "buffer_size_kb", "4096");
	write_to(TRACING "kprobe_events",
		 "p:ranged flush_tlb_mm_range start=%si end=%dx\n"
		 "r:ranged_done flush_tlb_mm_range\n"
		 "p:batched arch_tlbbatch_flush\n"
		 "r:flushed arch_tlbbatch_flush\n"
		 "p:scan task_numa_work\n"
		 "r:scanned task_numa_work\n");
	write_to(TRACING "events/kprobes/enable", "1");
	/* TLB_REMOTE_SEND_IPI */
	write_to(TRACING "events/tlb/tlb_flush/filter", "reason == 4");
	write_to(TRACING "events/tlb/tlb_flush/enable", "1");
}

int main(void)
{
	static char text[256], scan_mb[16], period[16], shortest[16], longest[16], hot[16];
	FILE *settings;
	int status;

	setvbuf(stdout, NULL, _IONBF, 0);
	mkdir("/proc", 0755), mkdir("/sys", 0755), mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	if (mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL))
		die("tracefs");
	line = second_line();
	start_cpus();
	settings = fopen("/settings", "r");
	if (!settings || !fgets(text, sizeof(text), settings) ||
	    sscanf(text, "%lu %lu %lu %lu %lu %lu %lu %15s %15s %15s %15s %15s", &grid_pages, &index_pages, &lookups,
		   &at_once, &grid_reads, &work, &seed, scan_mb, period, shortest, longest, hot) != 12)
		die("/settings");
	prepare_kernel(scan_mb, period, shortest, longest, hot);
	find_kswapd();
	hand_over_counters("start");
	if (!fork())
		program();
	wait(&status);
	write_to(TRACING "tracing_on", "0");
	hand_over("trace", "whole", TRACING "trace");
	snprintf(text, sizeof(text), "OVER %d\n", status);
	to_line(line, text, strlen(text));
	tcdrain(line);
	sync();
	reboot(RB_AUTOBOOT);
	return 1;
}
