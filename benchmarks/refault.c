/*
 * The guest of refault.py: process 1 of a kernel. Three threads ask whether a page that reclaim has unmapped, and not
 * yet flushed for, may be written anew while another CPU still reads what was there.
 *
 * CPU 0 writes version 2r to some pages and makes them clean: MADV_FREE, or msync of a file. CPU 2 reads the first of
 * them, so that it has it cached. CPU 0 reclaims them (MADV_PAGEOUT); CPU 1 writes 2r+1 to the first one and says so;
 * CPU 2, once told, reads it again. If that finds 2r, it has read the old page.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES 30 /* less than a batch of reclaim */
#define SECONDS 20
#define HOG_SECONDS 0.002

/* Rounds that have come so far: each is written by one thread. */
static volatile long cleaned, cached, started, written, read_again, drained, returned;
static volatile int over;
static volatile long *first_page;
static char *own_page;
static long stale, stale_during;

static void relax(void)
{
	__builtin_ia32_pause();
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int reaches(volatile long *what, long round)
{
	while (*what < round && !over)
		relax();
	return *what >= round;
}

static void *writes(void *unused)
{
	pin(1);
	for (long round = 1; reaches(&started, round); round++) {
		*first_page = 2 * round + 1;
		__sync_synchronize();
		written = round;
		reaches(&read_again, round);
		/* lru_add_drain here, or the new page is on no LRU list, and the next round's reclaim leaves it. */
		madvise(own_page, PAGE, MADV_COLD);
		drained = round;
	}
	return NULL;
}

static void *reads(void *unused)
{
	pin(2);
	for (long round = 1; reaches(&cleaned, round); round++) {
		long found = *first_page;

		if (found != 2 * round)
			printf("round %ld began with version %ld\n", round, found);
		cached = round;
		if (!reaches(&written, round))
			break;
		__sync_synchronize();
		found = *first_page;
		if (found != 2 * round + 1) {
			stale++;
			stale_during += returned < round;
		}
		read_again = round;
	}
	return NULL;
}

/* Takes CPU 0 away from reclaim now and then, which gives way between two folios (cond_resched). */
static void *hogs(void *unused)
{
	struct sched_param first = { .sched_priority = 50 };
	unsigned seed = 1;

	pin(0);
	sched_setscheduler(0, SCHED_FIFO, &first);
	while (!over) {
		struct timespec pause = { 0, 20000 + rand_r(&seed) % 2000000 };
		double until;

		nanosleep(&pause, NULL);
		for (until = now() + HOG_SECONDS; now() < until;)
			relax();
	}
	return NULL;
}

static void run(const char *name, char *memory, int file, int hog)
{
	pthread_t threads[3];
	double end = now() + SECONDS;
	long round = 0;

	first_page = (volatile long *)memory;
	cleaned = cached = started = written = read_again = drained = returned = stale = stale_during = over = 0;
	pthread_create(&threads[0], NULL, writes, NULL);
	pthread_create(&threads[1], NULL, reads, NULL);
	if (hog)
		pthread_create(&threads[2], NULL, hogs, NULL);
	while (now() < end) {
		round++;
		for (int page = 0; page < PAGES; page++)
			*(volatile long *)(memory + page * PAGE) = 2 * round;
		if (file ? msync(memory, PAGES * PAGE, MS_SYNC) : madvise(memory, PAGES * PAGE, MADV_FREE))
			perror(name);
		cleaned = round;
		reaches(&cached, round);
		started = round;
		if (madvise(memory, PAGES * PAGE, MADV_PAGEOUT))
			perror("MADV_PAGEOUT");
		returned = round;
		reaches(&read_again, round);
		reaches(&drained, round);
	}
	over = 1;
	for (int thread = 0; thread < 2 + hog; thread++)
		pthread_join(threads[thread], NULL);
	printf("%-18s %-10s %6ld rounds, %4ld read the old page, %ld of them before reclaim was through\n", name,
	       hog ? "preempted" : "", round, stale, stale_during);
}

static char *file_on_ext4(void)
{
	static char buffer[1 << 16];
	int module = open("/brd.ko", O_RDONLY), image = open("/ext4.image", O_RDONLY), device, file;
	ssize_t bytes;

	if (syscall(SYS_finit_module, module, "rd_nr=1 rd_size=16384", 0))
		perror("brd");
	device = open("/dev/ram0", O_WRONLY);
	while ((bytes = read(image, buffer, sizeof(buffer))) > 0)
		if (write(device, buffer, bytes) != bytes)
			perror("ram0");
	fsync(device);
	close(device);
	if (mount("/dev/ram0", "/mnt", "ext4", 0, NULL))
		perror("mount");
	file = open("/mnt/file", O_RDWR | O_CREAT, 0600);
	memset(buffer, 0, PAGE);
	for (int page = 0; page < PAGES; page++)
		if (write(file, buffer, PAGE) != PAGE)
			perror("write");
	fsync(file);
	return mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
}

static char *anonymous(int pages)
{
	return mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void)
{
	struct utsname kernel;
	char *memory, *file;
	int console;

	mkdir("/mnt", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	console = open("/dev/ttyS0", O_RDWR);
	dup2(console, 1);
	dup2(console, 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	uname(&kernel);
	printf("Linux %s\n", kernel.release);
	pin(0);
	own_page = anonymous(1);
	*own_page = 1;
	memory = anonymous(PAGES);
	file = file_on_ext4();
	madvise(memory, PAGES * PAGE, MADV_NOHUGEPAGE);
	madvise(file, PAGES * PAGE, MADV_RANDOM);
	for (int hog = 0; hog < 2; hog++) {
		run("madv-free-refault", memory, 0, hog);
		run("reclaim-refill", file, 1, hog);
	}
	reboot(RB_POWER_OFF);
	return 0;
}
