/*
 * The operations of the recorder's guest: how memory looks before, and the system call that is recorded. What they
 * are called, and what they mean, is in docs/linux.md; guest.c runs them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define HUGE (512 * PAGE)
#define ALONE ((char *)0x1001000000UL)	/* 64 GiB and 16 MiB: nothing else in the same table of any level */
#define ELSEWHERE ((char *)(2 * TABLE) + 16 * PAGE)
#define OTHERS (AREA + 0x400 * PAGE)
#define MOVED_BEFORE 32
#define MOST_PAGES 4096

#ifndef MADV_COLD
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

size_t pages;	/* the number in the operation's name */
static int fd = -1;	/* the file that is mapped, if one is */
const char *failed;	/* what did not do what it was to do */

/* ---- memory ---- */

static char *map_at(char *at, size_t count, int prot, int flags, int file)
{
	char *got = mmap(at, count * PAGE, prot, flags | MAP_FIXED_NOREPLACE, file, 0);

	if (got != at)
		die("mmap");
	return got;
}

static void map_anonymous(char *at, size_t count)
{
	map_at(at, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void write_at(char *at, size_t count)
{
	for (size_t page = 0; page < count; page++)
		*(volatile char *)(at + page * PAGE) += 1;
}

static void read_at(char *at, size_t count)
{
	for (size_t page = 0; page < count; page++)
		(void)*(volatile char *)(at + page * PAGE);
}

static void nothing(void) { }
static void write_area(void) { write_at(AREA, pages); }
void read_area(void) { read_at(AREA, pages); }

/* A first write that does not read before: a read of anonymous memory maps the zero page. */
static void fill_at(char *at, size_t count)
{
	for (size_t page = 0; page < count; page++)
		*(volatile char *)(at + page * PAGE) = 1;
}

static void neighbours(void)
{
	map_anonymous(AREA - PAGE, 1);
	fill_at(AREA - PAGE, 1);
	map_anonymous(AREA + pages * PAGE, 1);
	fill_at(AREA + pages * PAGE, 1);
}

static void unpopulated(void) { neighbours(); map_anonymous(AREA, pages); }
static void anonymous(void) { unpopulated(); fill_at(AREA, pages); }
static void anonymous_read(void) { unpopulated(); read_area(); }

/* A file of so many pages, written out: clean, and its blocks allocated. */
static void open_file(const char *path)
{
	static char page[PAGE] = "content";

	fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	for (size_t n = 0; n < pages; n++)
		if (write(fd, page, PAGE) != (ssize_t)PAGE)
			die(path);
	if (fsync(fd))
		die("fsync");
}

static void map_file(const char *path, int flags)
{
	neighbours();
	open_file(path);
	map_at(AREA, pages, PROT_READ | PROT_WRITE, flags, fd);
	read_area();
}

static void shared_file(void) { map_file("/ext4/file", MAP_SHARED); }
static void written_file(void) { shared_file(); write_area(); }
static void private_file(void) { map_file("/ext4/file", MAP_PRIVATE); }
static void private_copies(void) { private_file(); write_area(); }
static void shared_tmpfs(void) { map_file("/tmpfs/file", MAP_SHARED); }
static void written_tmpfs(void) { shared_tmpfs(); write_area(); }
static void alone(void) { map_anonymous(ALONE, pages); fill_at(ALONE, pages); }
static void write_alone(void) { write_at(ALONE, pages); }

static void with_others(void)
{
	anonymous();
	map_anonymous(OTHERS, MOVED_BEFORE);
	fill_at(OTHERS, MOVED_BEFORE);
}

static void write_both(void) { write_area(); write_at(OTHERS, MOVED_BEFORE); }

/* Stacks and data: what is private and writable, above all that operations map. */
static void each_own_range(void (*visit)(unsigned long start, unsigned long end))
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

static void dont_fork(unsigned long start, unsigned long end)
{
	if (madvise((void *)start, end - start, MADV_DONTFORK))
		die("MADV_DONTFORK");
}

/* After a fork: what this process writes of its own is its own again. */
void own_pages(void) { each_own_range(write_range); }

/* ---- what is called ---- */

static void expect(int result, const char *what)
{
	if (result && !failed)
		failed = what;
}

static void call_munmap(void) { expect(munmap(AREA, pages * PAGE), "munmap"); }
static void munmap_alone(void) { expect(munmap(ALONE, pages * PAGE), "munmap"); }
static void protect(char *at, size_t count, int prot) { expect(mprotect(at, count * PAGE, prot), "mprotect"); }
static void read_only(void) { protect(AREA, pages, PROT_READ); }
static void writable(void) { protect(AREA, pages, PROT_READ | PROT_WRITE); }
static void inaccessible(void) { protect(AREA, pages, PROT_NONE); }
static void advise(int advice) { expect(madvise(AREA, pages * PAGE, advice), "madvise"); }
static void dontneed(void) { advise(MADV_DONTNEED); }
static void madv_free(void) { advise(MADV_FREE); }
static void madv_cold(void) { advise(MADV_COLD); }
static void pageout(void) { advise(MADV_PAGEOUT); }
static void call_msync(void) { expect(msync(AREA, pages * PAGE, MS_SYNC), "msync"); }
static void truncate_file(void) { expect(ftruncate(fd, 0), "ftruncate"); }

static void punch_hole(void)
{
	expect(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, pages * PAGE), "fallocate");
}

static void call_mremap(void)
{
	char *got = mremap(AREA, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE);

	expect(got != ELSEWHERE, "mremap");
}

static void mmap_fixed(void)
{
	char *got = mmap(AREA, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			 -1, 0);

	expect(got != AREA, "mmap");
}

static void *to_move[MOST_PAGES];
static int nodes[MOST_PAGES], status[MOST_PAGES];

void list_pages(char *at, size_t count, size_t step)
{
	for (size_t n = 0; n < count; n++) {
		to_move[n] = at + n * step;
		nodes[n] = 1;
		status[n] = -1;
	}
}

int move_listed(pid_t pid, size_t count)
{
	int all = 4; /* MPOL_MF_MOVE_ALL: also pages that several processes map */

	return syscall(SYS_move_pages, pid, count, to_move, nodes, status, all) || status[0] != 1;
}

static void list_area(void) { list_pages(AREA, pages, PAGE); own_pages(); }
static void move(void) { expect(move_listed(0, pages), "move_pages"); }
/* Kernels before v6.3 leave inaccessible pages where they are, and say so in their status. */
static void try_to_move(void) { expect(move_listed(0, pages) && status[0] == -1, "move_pages"); }
static void list_read_only(void) { list_area(); read_only(); }
static void list_inaccessible(void) { list_area(); inaccessible(); }

static void move_others(void)
{
	list_pages(OTHERS, MOVED_BEFORE, PAGE);
	expect(move_listed(0, MOVED_BEFORE), "move_pages");
}

static void bind_area(void)
{
	unsigned long mask = 2;

	expect(syscall(SYS_mbind, AREA, pages * PAGE, 2 /* MPOL_BIND */, &mask, 8, 2), "mbind");
}

pid_t child;

static void call_fork(void)
{
	child = fork();
	if (!child)
		for (;;)
			pause();
}

static void fork_before(void) { call_fork(); own_pages(); }

/*
 * The child gets the area and nothing to run on, so that nothing of this process' own is copied on its next write;
 * and it does not run before the case is over.
 */
static void keep_own_pages(void)
{
	struct sched_param first = { .sched_priority = 1 };

	each_own_range(dont_fork);
	if (sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &first))
		die("sched_setscheduler");
}

static void fork_and_exit(void)
{
	call_fork();
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	child = 0;
	own_pages();
}

static int refs = -1;
static void open_refs(void) { refs = open("/proc/self/clear_refs", O_WRONLY); }
static void clear_young(void) { expect(write(refs, "1", 1) != 1, "clear_refs"); }
static void clear_soft_dirty(void) { expect(write(refs, "4", 1) != 1, "clear_refs"); }

static int uffd = -1;

static void register_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register range = {
		.range = { (unsigned long)AREA, pages * PAGE }, .mode = UFFDIO_REGISTER_MODE_WP,
	};

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range))
		die("userfaultfd");
}

static void protect_uffd(void)
{
	struct uffdio_writeprotect range = {
		.range = { (unsigned long)AREA, pages * PAGE }, .mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	expect(ioctl(uffd, UFFDIO_WRITEPROTECT, &range), "UFFDIO_WRITEPROTECT");
}

static void unprotect_uffd(void)
{
	struct uffdio_writeprotect range = { .range = { (unsigned long)AREA, pages * PAGE } };

	expect(ioctl(uffd, UFFDIO_WRITEPROTECT, &range), "UFFDIO_WRITEPROTECT");
}

static void register_and_protect(void) { register_uffd(); protect_uffd(); }

/* Huge pages as many as the name says, and a small one behind them. */
static char *const huge = (char *)TABLE;

static void write_huge(void)
{
	for (size_t n = 0; n < pages; n++)
		*(volatile char *)(huge + n * HUGE) = 1;
}

static void map_huge(void)
{
	map_anonymous(huge, pages * 512);
	if (madvise(huge, pages * HUGE, MADV_HUGEPAGE))
		die("MADV_HUGEPAGE");
	map_anonymous(huge + pages * HUGE, 1);
	fill_at(huge + pages * HUGE, 1);
	write_huge();
}

static void map_small(void)
{
	map_anonymous(huge, pages * 512);
	fill_at(huge, pages * 512);
	map_anonymous(huge + pages * HUGE, 1);
	fill_at(huge + pages * HUGE, 1);
}

static void write_small(void) { write_at(huge, pages * 512); }
static void munmap_huge(void) { expect(munmap(huge, pages * HUGE), "munmap"); }
static void munmap_part(void) { expect(munmap(huge + 16 * PAGE, 8 * PAGE), "munmap"); }
static void read_only_huge(void) { protect(huge, pages * 512, PROT_READ); }
static void read_only_part(void) { protect(huge + 16 * PAGE, 8, PROT_READ); }
static void dontneed_huge(void) { expect(madvise(huge, pages * HUGE, MADV_DONTNEED), "madvise"); }
static void dontneed_part(void) { expect(madvise(huge + 16 * PAGE, 8 * PAGE, MADV_DONTNEED), "madvise"); }
static void collapse(void) { expect(madvise(huge, pages * HUGE, MADV_COLLAPSE), "MADV_COLLAPSE"); }
static void list_huge(void) { list_pages(huge, pages, HUGE); own_pages(); }

/* ---- the operations ---- */

static const struct operation operations[] = {
	{ "nothing", anonymous, write_area, nothing, nothing },
	{ "munmap", anonymous, write_area, nothing, call_munmap },
	{ "munmap_unpopulated", unpopulated, nothing, nothing, call_munmap },
	{ "munmap_tables", alone, write_alone, nothing, munmap_alone },
	{ "munmap_zero", anonymous_read, read_area, nothing, call_munmap },
	{ "munmap_file_clean", shared_file, read_area, nothing, call_munmap },
	{ "munmap_file_dirty", written_file, write_area, nothing, call_munmap },
	{ "munmap_tmpfs", written_tmpfs, write_area, nothing, call_munmap },
	{ "mprotect_ro", anonymous, write_area, nothing, read_only },
	{ "mprotect_rw", anonymous, write_area, read_only, writable },
	{ "mprotect_none", anonymous, write_area, nothing, inaccessible },
	{ "mprotect_back", anonymous, write_area, inaccessible, writable },
	{ "mprotect_ro_unpop", unpopulated, nothing, nothing, read_only },
	{ "mprotect_ro_zero", anonymous_read, read_area, nothing, read_only },
	{ "mprotect_file_ro", written_file, write_area, nothing, read_only },
	{ "dontneed", anonymous, write_area, nothing, dontneed },
	{ "dontneed_zero", anonymous_read, read_area, nothing, dontneed },
	{ "dontneed_unpopulated", unpopulated, nothing, nothing, dontneed },
	{ "dontneed_file_clean", shared_file, read_area, nothing, dontneed },
	{ "dontneed_file_dirty", written_file, write_area, nothing, dontneed },
	{ "madv_free", anonymous, write_area, nothing, madv_free },
	{ "madv_cold", anonymous, write_area, nothing, madv_cold },
	{ "pageout_file_clean", shared_file, read_area, nothing, pageout },
	{ "pageout_file_dirty", written_file, write_area, nothing, pageout },
	{ "mremap", anonymous, write_area, nothing, call_mremap },
	{ "mmap_fixed", anonymous, write_area, nothing, mmap_fixed },
	{ "fork", anonymous, write_area, keep_own_pages, call_fork },
	{ "cow_parent", anonymous, write_area, fork_before, write_area },
	{ "reuse_after_fork", anonymous, write_area, fork_and_exit, write_area },
	{ "zero_write", anonymous_read, read_area, nothing, write_area },
	{ "private_file_write", private_file, read_area, nothing, write_area },
	{ "shared_file_write", shared_file, read_area, nothing, write_area },
	{ "shared_tmpfs_write", shared_tmpfs, read_area, nothing, write_area },
	{ "move", anonymous, write_area, list_area, move },
	{ "move_ro", anonymous, write_area, list_read_only, move },
	{ "move_none", anonymous, write_area, list_inaccessible, try_to_move },
	{ "move_remote", anonymous, write_area, nothing, nothing, CALLED_BY_ANOTHER },
	{ "move_shared", shared_tmpfs, read_area, list_area, move, MAPPED_ELSEWHERE },
	{ "mbind", anonymous, write_area, nothing, bind_area },
	{ "moved_then_ro", with_others, write_both, move_others, read_only },
	{ "moved_then_none", with_others, write_both, move_others, inaccessible },
	{ "moved_then_munmap", with_others, write_both, move_others, call_munmap },
	{ "moved_then_dontneed", with_others, write_both, move_others, dontneed },
	{ "moved_then_write", with_others, write_both, move_others, write_area },
	{ "thp_munmap", map_huge, write_huge, nothing, munmap_huge },
	{ "thp_munmap_part", map_huge, write_huge, nothing, munmap_part },
	{ "thp_mprotect_ro", map_huge, write_huge, nothing, read_only_huge },
	{ "thp_mprotect_part", map_huge, write_huge, nothing, read_only_part },
	{ "thp_dontneed", map_huge, write_huge, nothing, dontneed_huge },
	{ "thp_dontneed_part", map_huge, write_huge, nothing, dontneed_part },
	{ "thp_move", map_huge, write_huge, list_huge, move },
	{ "thp_cow_parent", map_huge, write_huge, fork_before, write_huge },
	{ "thp_collapse", map_small, write_small, nothing, collapse },
	{ "truncate_clean", shared_file, read_area, nothing, truncate_file },
	{ "truncate_dirty", written_file, write_area, nothing, truncate_file },
	{ "truncate_tmpfs", written_tmpfs, write_area, nothing, truncate_file },
	{ "truncate_private", private_copies, write_area, nothing, truncate_file },
	{ "punch_clean", shared_file, read_area, nothing, punch_hole },
	{ "punch_dirty", written_file, write_area, nothing, punch_hole },
	{ "punch_tmpfs", written_tmpfs, write_area, nothing, punch_hole },
	{ "msync", written_file, write_area, nothing, call_msync },
	{ "clear_young", anonymous, write_area, open_refs, clear_young },
	{ "clear_refs", anonymous, write_area, open_refs, clear_soft_dirty },
	{ "thread_exit", anonymous, write_area, nothing, nothing, A_THREAD_EXITS },
	{ "exit", anonymous, write_area, nothing, nothing, EXITS },
	{ "uffd_wp", anonymous, write_area, register_uffd, protect_uffd },
	{ "uffd_unwp", anonymous, write_area, register_and_protect, unprotect_uffd },
};

/* "munmap_8": the operation, and its number in `pages`, 1 if there is none. */
const struct operation *find_operation(const char *name)
{
	const char *last = strrchr(name, '_');
	size_t length = strlen(name);

	pages = 1;
	if (last && last[1] >= '0' && last[1] <= '9') {
		pages = atoi(last + 1);
		length = last - name;
	}
	for (size_t n = 0; n < sizeof(operations) / sizeof(*operations); n++)
		if (strlen(operations[n].name) == length && !strncmp(operations[n].name, name, length))
			return &operations[n];
	return NULL;
}
