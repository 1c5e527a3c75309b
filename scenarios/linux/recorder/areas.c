/*
 * The memory that operations of the recorder's guest are called on. Pages lie in page tables that their neighbours
 * keep in use, so that no table is freed, unless the kind says otherwise.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define ALONE ((char *)0x1001000000UL)	/* 64 GiB and 16 MiB: nothing else in the same table of any level */

size_t number, pages;
char *area = AREA;
int fd = -1;
pid_t child;
const char *failed;

void expect(int result, const char *what)
{
	if (result && !failed)
		failed = what;
}

/* ---- pages ---- */

static void map_at(char *at, size_t count, int prot, int flags, int file)
{
	if (mmap(at, count * PAGE, prot, flags | MAP_FIXED_NOREPLACE, file, 0) != at)
		die("mmap");
}

void map_anonymous(char *at, size_t count)
{
	map_at(at, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

void write_at(char *at, size_t count)
{
	for (size_t page = 0; page < count; page++)
		*(volatile char *)(at + page * PAGE) += 1;
}

void read_at(char *at, size_t count)
{
	for (size_t page = 0; page < count; page++)
		(void)*(volatile char *)(at + page * PAGE);
}

/* A first write that does not read before: a read of anonymous memory maps the zero page. */
void fill_at(char *at, size_t count)
{
	for (size_t page = 0; page < count; page++)
		*(volatile char *)(at + page * PAGE) = 1;
}

void nothing(void) { }
void write_area(void) { write_at(area, pages); }
void read_area(void) { read_at(area, pages); }

static void neighbours(char *at, size_t count)
{
	area = at;
	pages = count;
	map_anonymous(at - PAGE, 1);
	fill_at(at - PAGE, 1);
	map_anonymous(at + count * PAGE, 1);
	fill_at(at + count * PAGE, 1);
}

/* ---- anonymous memory ---- */

static void unpopulated_at(char *at)
{
	neighbours(at, number);
	map_anonymous(at, number);
}

static void unpopulated(void) { unpopulated_at(AREA); }
static void anonymous(void) { unpopulated(); fill_at(area, pages); }
static void anonymous_read(void) { unpopulated(); read_area(); }
static void locked(void) { anonymous(); expect(mlock(area, pages * PAGE), "mlock"); }

static void alone(void)
{
	area = ALONE;
	pages = number;
	map_anonymous(area, pages);
	fill_at(area, pages);
}

/* Half of it in front of the border of a page table, and of a table of those. */
static void across_pmd(void) { unpopulated_at((char *)TABLE + HUGE - number / 2 * PAGE); fill_at(area, pages); }
static void across_pud(void) { unpopulated_at((char *)(3 * TABLE) - number / 2 * PAGE); fill_at(area, pages); }

static void every_second(void (*visit)(char *at, size_t count))
{
	for (size_t page = 0; page < pages; page += 2)
		visit(area + page * PAGE, 1);
}

static void sparse(void) { unpopulated(); every_second(fill_at); }
static void write_sparse(void) { every_second(write_at); }

static void protect_area(int prot) { expect(mprotect(area, pages * PAGE, prot), "mprotect"); }
void read_only(void) { protect_area(PROT_READ); }
void inaccessible(void) { protect_area(PROT_NONE); }

/* Two areas that lie side by side: the second half is read-only. */
static void two_areas(void)
{
	anonymous();
	expect(mprotect(area + pages / 2 * PAGE, (pages - pages / 2) * PAGE, PROT_READ), "mprotect");
}

static void write_first_half(void)
{
	write_at(area, pages / 2);
	read_at(area + pages / 2 * PAGE, pages - pages / 2);
}

/* Pages that KSM has merged. */
static void mergeable(void) { anonymous(); expect(madvise(area, pages * PAGE, MADV_MERGEABLE), "MADV_MERGEABLE"); }
static void fill_area(void) { fill_at(area, pages); }

static void merged(void)
{
	write_to("/sys/kernel/mm/ksm/run", "1");
	while (read_number("/sys/kernel/mm/ksm/pages_sharing", "") < (long)pages - 1)
		usleep(5000);
	write_to("/sys/kernel/mm/ksm/run", "0");
	own_pages();
}

/* ---- files ---- */

/* A file of so many pages, written out: clean, and its blocks allocated. */
static void open_file(const char *path)
{
	static char page[PAGE] = "content";

	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	for (size_t n = 0; n < number; n++)
		if (write(fd, page, PAGE) != (ssize_t)PAGE)
			die(path);
	if (fsync(fd))
		die("fsync");
}

static void map_file(const char *path, int flags)
{
	neighbours(AREA, number);
	open_file(path);
	map_at(area, pages, PROT_READ | PROT_WRITE, flags, fd);
	read_area();
}

static void shared_file(void) { map_file("/ext4/file", MAP_SHARED); }
static void written_file(void) { shared_file(); write_area(); }
static void private_file(void) { map_file("/ext4/file", MAP_PRIVATE); }
static void private_copies(void) { private_file(); write_area(); }
static void shared_tmpfs(void) { map_file("/tmpfs/file", MAP_SHARED); }
static void written_tmpfs(void) { shared_tmpfs(); write_area(); }

static void shared_anonymous(void)
{
	neighbours(AREA, number);
	map_at(area, pages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
	fill_at(area, pages);
}

/* What another process made (guest.c). */
void map_tmpfs(char *at, size_t count, int flags)
{
	map_at(at, count, PROT_READ | PROT_WRITE, flags, open("/tmpfs/file", O_RDWR));
}

/* ---- huge pages: as many as the name says, and a small one behind them ---- */

static char *const huge = (char *)TABLE;

static void write_huge(void)
{
	for (size_t n = 0; n < number; n++)
		*(volatile char *)(huge + n * HUGE) = 1;
}

static void read_huge(void)
{
	for (size_t n = 0; n < number; n++)
		(void)*(volatile char *)(huge + n * HUGE);
}

static void huge_area(int advice)
{
	area = huge;
	pages = number * 512;
	map_anonymous(huge, pages);
	if (madvise(huge, number * HUGE, advice))
		die("MADV_HUGEPAGE");
	map_anonymous(huge + number * HUGE, 1);
	fill_at(huge + number * HUGE, 1);
}

static void map_huge(void) { huge_area(MADV_HUGEPAGE); write_huge(); }
static void map_huge_read(void) { huge_area(MADV_HUGEPAGE); read_huge(); }

static void part_of_huge(void)
{
	map_huge();
	area = huge + 16 * PAGE;
	pages = 8;
}

/* From the middle of the first to the middle of the last. */
static void huge_unaligned(void)
{
	map_huge();
	area = huge + HUGE / 2;
	pages = (number - 1) * 512;
}

static void small_pages(void)
{
	huge_area(MADV_NOHUGEPAGE);
	fill_at(huge, pages);
}

/* ---- forks ---- */

/* Stacks and data: what is private and writable, above all that operations map. */
void each_own_range(void (*visit)(unsigned long start, unsigned long end))
{
	static char maps[1 << 16];
	int file = open("/proc/self/maps", O_RDONLY);
	ssize_t length = 0, got;
	unsigned long start, end;
	char rights[8];

	while ((got = read(file, maps + length, sizeof(maps) - 1 - length)) > 0)
		length += got;
	maps[length] = 0;
	close(file);
	for (char *line = strtok(maps, "\n"); line; line = strtok(NULL, "\n"))
		if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) == 3 && rights[1] == 'w' &&
		    rights[3] == 'p' && start >= 1UL << 42)
			visit(start, end);
}

static void write_range(unsigned long start, unsigned long end)
{
	for (; start < end; start += PAGE)
		__atomic_fetch_add((char *)start, 0, __ATOMIC_SEQ_CST);
}

/* After a fork: what this process writes of its own is its own again. */
void own_pages(void) { each_own_range(write_range); }

void fork_before(void)
{
	child = fork();
	if (!child)
		for (;;)
			pause();
	own_pages();
}

static void fork_and_exit(void)
{
	fork_before();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	child = 0;
}

/* ---- the kinds ---- */

const struct kind kinds[] = {
	{ "", anonymous, write_area, nothing },
	{ "unpopulated", unpopulated, nothing, nothing },
	{ "unpop", unpopulated, nothing, nothing },
	{ "zero", anonymous_read, read_area, nothing },
	{ "tables", alone, write_area, nothing },
	{ "sparse", sparse, write_sparse, nothing },
	{ "pmd", across_pmd, write_area, nothing },
	{ "pud", across_pud, write_area, nothing },
	{ "two", two_areas, write_first_half, nothing },
	{ "locked", locked, write_area, nothing },
	{ "ro", anonymous, write_area, read_only },
	{ "none", anonymous, write_area, inaccessible },
	{ "forked", anonymous, write_area, fork_before },
	{ "reused", anonymous, write_area, fork_and_exit },
	{ "mergeable", mergeable, fill_area, nothing },
	{ "merged", mergeable, fill_area, merged },
	{ "file_clean", shared_file, read_area, nothing },
	{ "clean", shared_file, read_area, nothing },
	{ "file_dirty", written_file, write_area, nothing },
	{ "dirty", written_file, write_area, nothing },
	{ "file", written_file, write_area, nothing },
	{ "private", private_copies, write_area, nothing },
	{ "private_clean", private_file, read_area, nothing },
	{ "tmpfs", written_tmpfs, write_area, nothing },
	{ "tmpfs_clean", shared_tmpfs, read_area, nothing },
	{ "shared", shared_anonymous, write_area, nothing },
	{ "elsewhere", shared_tmpfs, read_area, nothing, MAPPED_ELSEWHERE },
	{ "thp", map_huge, write_huge, nothing },
	{ "thp_part", part_of_huge, write_huge, nothing },
	{ "thp_unaligned", huge_unaligned, write_huge, nothing },
	{ "thp_zero", map_huge_read, read_huge, nothing },
	{ "thp_ro", map_huge, write_huge, read_only },
	{ "thp_none", map_huge, write_huge, inaccessible },
	{ "thp_forked", map_huge, write_huge, fork_before },
	{ "thp_forked_part", part_of_huge, write_huge, fork_before },
	{ "small", small_pages, write_area, nothing },
	{ 0 },
};
