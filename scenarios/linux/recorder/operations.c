/*
 * The operations of the recorder's guest: what is called on which memory. What they are called, and what they mean,
 * is in docs/linux.md; areas.c has the memory, and guest.c runs them.
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
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define MOST_PAGES 4096

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

const struct kind *kind;
const struct call *call;
int flags;

/* ---- unmapping and protecting ---- */

static void call_munmap(void) { expect(munmap(area, pages * PAGE), "munmap"); }
static void protect(int prot) { expect(mprotect(area, pages * PAGE, prot), "mprotect"); }
static void writable(void) { protect(PROT_READ | PROT_WRITE); }
static void executable(void) { protect(PROT_READ | PROT_WRITE | PROT_EXEC); }

static void mmap_over(int prot, int map, int file)
{
	expect(mmap(area, pages * PAGE, prot, map | MAP_FIXED, file, 0) != area, "mmap");
}

static void mmap_fixed(void) { mmap_over(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1); }
static void mmap_none(void) { mmap_over(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1); }

/* The first page of each huge one. */
static void write_heads(void)
{
	for (size_t page = 0; page < pages; page += 512)
		fill_at(area + page * PAGE, 1);
}

static void *heap;

static void grow_heap(void)
{
	/* Up to a border of pages, and a page that stays. */
	heap = sbrk(0);
	if (brk((char *)(((unsigned long)heap + PAGE - 1) & -PAGE) + PAGE) || !(heap = sbrk(pages * PAGE)))
		die("brk");
	fill_at((char *)heap - PAGE, pages + 1);
}

static void shrink_heap(void) { expect(brk(heap), "brk"); }

/* ---- madvise ---- */

static void advise(int advice) { expect(madvise(area, pages * PAGE, advice), "madvise"); }
static void dontneed(void) { advise(MADV_DONTNEED); }
static void dontneed_locked(void) { advise(MADV_DONTNEED_LOCKED); }
static void madv_free(void) { advise(MADV_FREE); }
static void madv_cold(void) { advise(MADV_COLD); }
static void pageout(void) { advise(MADV_PAGEOUT); }
static void willneed(void) { advise(MADV_WILLNEED); }
static void madv_remove(void) { advise(MADV_REMOVE); }
static void populate_read(void) { advise(MADV_POPULATE_READ); }
static void populate_write(void) { advise(MADV_POPULATE_WRITE); }
static void collapse(void) { advise(MADV_COLLAPSE); }
static void unmerge(void) { advise(MADV_UNMERGEABLE); }
static void lock(void) { expect(mlock(area, pages * PAGE), "mlock"); }
static void unlock(void) { expect(munlock(area, pages * PAGE), "munlock"); }

/* ---- files ---- */

static void call_msync(void) { expect(msync(area, pages * PAGE, MS_SYNC), "msync"); }
static void msync_async(void) { expect(msync(area, pages * PAGE, MS_ASYNC), "msync"); }
static void call_fsync(void) { expect(fsync(fd), "fsync"); }
static void truncate_file(void) { expect(ftruncate(fd, 0), "ftruncate"); }
static void truncate_half(void) { expect(ftruncate(fd, pages / 2 * PAGE), "ftruncate"); }

static void sync_range(void)
{
	int how = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;

	expect(sync_file_range(fd, 0, pages * PAGE, how), "sync_file_range");
}

static void change_file(int mode, size_t first, size_t count)
{
	expect(fallocate(fd, mode, first * PAGE, count * PAGE), "fallocate");
}

static void punch_hole(void) { change_file(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, pages); }
static void punch_half(void) { change_file(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pages / 4, pages / 2); }
static void zero_range(void) { change_file(FALLOC_FL_ZERO_RANGE, 0, pages); }

/* The same pages of the file, in the same place, by a mapping of their own. */
static void call_remap_file_pages(void) { expect(syscall(SYS_remap_file_pages, area, pages * PAGE, 0, 0, 0), "remap_file_pages"); }

static void start_writing_out(void)
{
	expect(sync_file_range(fd, 0, pages * PAGE, SYNC_FILE_RANGE_WRITE), "sync_file_range");
}

/* The last page stays, and what is behind the end in it is cleared. */
static void truncate_inside(void) { expect(ftruncate(fd, pages * PAGE - PAGE / 2), "ftruncate"); }

static void write_file(void)
{
	static char page[PAGE] = "other content";

	for (size_t n = 0; n < pages; n++)
		expect(pwrite(fd, page, PAGE, n * PAGE) != (ssize_t)PAGE, "pwrite");
}

/* ---- pages that the kernel reads and writes ---- */

static int memory = -1;
static void open_memory(void) { memory = open("/proc/self/mem", O_RDWR); }

static void write_memory(void)
{
	for (size_t n = 0; n < pages; n++)
		expect(pwrite(memory, "x", 1, (off_t)(area + n * PAGE)) != 1, "/proc/self/mem");
}

static int spliced[2];
static void open_pipe(void) { expect(pipe(spliced), "pipe"); }

static void call_vmsplice(void)
{
	struct iovec range = { area, pages * PAGE };

	expect(vmsplice(spliced[1], &range, 1, 0) != (ssize_t)range.iov_len, "vmsplice");
}

static int key;
static void allocate_key(void) { key = pkey_alloc(0, 0); expect(key < 0, "pkey_alloc"); }

static void protect_by_key(void)
{
	expect(pkey_mprotect(area, pages * PAGE, PROT_READ | PROT_WRITE, key), "pkey_mprotect");
}

static void register_membarrier(void) { expect(syscall(SYS_membarrier, 1 << 4, 0, 0), "membarrier"); }
static void call_membarrier(void) { expect(syscall(SYS_membarrier, 1 << 3, 0, 0), "membarrier"); }

/* ---- moving ---- */

static void remap(size_t count, int how, char *to)
{
	char *got = mremap(area, pages * PAGE, count * PAGE, how, to);

	expect(got == MAP_FAILED || (to && got != to), "mremap");
}

static void call_mremap(void) { remap(pages, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE); }
static void mremap_dontunmap(void) { remap(pages, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, ELSEWHERE); }
static void mremap_shrink(void) { remap(pages / 2, 0, NULL); }
static void mremap_move_shrink(void) { remap(pages / 2, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE); }
static void mremap_move_grow(void) { remap(pages * 2, MREMAP_MAYMOVE | MREMAP_FIXED, ELSEWHERE); }
static void mremap_aligned(void) { remap(pages, MREMAP_MAYMOVE | MREMAP_FIXED, (char *)(2 * TABLE)); }

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

static size_t listed;

/* Of huge pages the first page of each. */
static void list_area(void)
{
	size_t step = !strcmp(kind->name, "thp") ? 512 : 1;

	listed = pages / step;
	list_pages(area, listed, step * PAGE);
	own_pages();
}

/* Kernels before v6.3 leave inaccessible pages where they are, and say so in their status. */
static void move(void) { expect(move_listed(0, listed) && strcmp(kind->name, "none"), "move_pages"); }

static void move_others(void)
{
	list_pages(OTHERS, MOVED_BEFORE, PAGE);
	expect(move_listed(0, MOVED_BEFORE), "move_pages");
}

static void bind_to(unsigned long start, unsigned long end, unsigned long mask, int how)
{
	expect(syscall(SYS_mbind, start, end - start, 2 /* MPOL_BIND */, &mask, 8, how), "mbind");
}

static void bind_area(void) { bind_to((unsigned long)area, (unsigned long)area + pages * PAGE, 2, 2); }

/* ---- processes ---- */

static void dont_fork(unsigned long start, unsigned long end)
{
	if (madvise((void *)start, end - start, MADV_DONTFORK))
		die("MADV_DONTFORK");
}

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

static void call_fork(void)
{
	child = fork();
	if (!child)
		for (;;)
			pause();
}

static void call_vfork(void)
{
	if (!vfork())
		_exit(0);
}

static int to_child[2], from_child[2];

/* A child that will write to the area, when it is told to. */
static void fork_writer(void)
{
	if (pipe(to_child) || pipe(from_child))
		die("pipe");
	child = fork();
	if (!child) {
		own_pages();
		tell(from_child[1]);
		hear(to_child[0]);
		write_area();
		tell(from_child[1]);
		for (;;)
			pause();
	}
	own_pages();
	hear(from_child[0]);
}

static void child_writes(void) { tell(to_child[1]); hear(from_child[0]); }

/* ---- tracking ---- */

static int refs = -1;
static void open_refs(void) { refs = open("/proc/self/clear_refs", O_WRONLY); }
static void clear_young(void) { expect(write(refs, "1", 1) != 1, "clear_refs"); }
static void clear_soft_dirty(void) { expect(write(refs, "4", 1) != 1, "clear_refs"); }
static void soft_dirty_before(void) { open_refs(); clear_soft_dirty(); }

static int uffd = -1;

static struct uffdio_range whole_area(void)
{
	return (struct uffdio_range){ (unsigned long)area, pages * PAGE };
}

static void register_for(int mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP };
	struct uffdio_register range = { .range = whole_area(), .mode = mode };

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range))
		die("userfaultfd");
}

static void register_uffd(void) { register_for(UFFDIO_REGISTER_MODE_WP); }
static void register_missing(void) { register_for(UFFDIO_REGISTER_MODE_MISSING); }

static void copy_by_uffd(void)
{
	static char content[64 * PAGE];
	struct uffdio_copy range = { (unsigned long)area, (unsigned long)content, pages * PAGE, 0, 0 };

	expect(ioctl(uffd, UFFDIO_COPY, &range), "UFFDIO_COPY");
}

static void zero_by_uffd(void)
{
	struct uffdio_zeropage range = { .range = whole_area() };

	expect(ioctl(uffd, UFFDIO_ZEROPAGE, &range), "UFFDIO_ZEROPAGE");
}

static void write_protect(int mode)
{
	struct uffdio_writeprotect range = { .range = whole_area(), .mode = mode };

	expect(ioctl(uffd, UFFDIO_WRITEPROTECT, &range), "UFFDIO_WRITEPROTECT");
}

static void protect_uffd(void) { write_protect(UFFDIO_WRITEPROTECT_MODE_WP); }
static void unprotect_uffd(void) { write_protect(0); }
static void register_and_protect(void) { register_uffd(); protect_uffd(); }

static void unregister_uffd(void)
{
	struct uffdio_range range = whole_area();

	expect(ioctl(uffd, UFFDIO_UNREGISTER, &range), "UFFDIO_UNREGISTER");
}

/* ---- what kernel threads and the scheduler do ---- */

static void merge(void)
{
	write_to("/sys/kernel/mm/ksm/run", "1");
	for (int n = 0; read_number("/sys/kernel/mm/ksm/pages_sharing", "") < (long)pages - 1; n++) {
		if (n == 2000)
			expect(1, "KSM");
		usleep(5000);
	}
}

/* Balancing leaves memory alone that is bound to a node: everything, until the area is no more. */
static void bind_own(unsigned long start, unsigned long end) { bind_to(start, end, 1, 0); }

static void balance(void)
{
	each_own_range(bind_own);
	if (area == AREA)
		bind_own((unsigned long)area - PAGE, (unsigned long)area);
	bind_own((unsigned long)area, (unsigned long)area + (pages + 1) * PAGE);
	write_to("/proc/sys/kernel/numa_balancing", "1");
}

/* So long as a scan takes that has anything to mark. */
static void be_scanned(void)
{
	long before = read_number("/proc/vmstat", "numa_pte_updates ");

	expect(syscall(SYS_mbind, area, pages * PAGE, 0 /* MPOL_DEFAULT */, NULL, 0, 0), "mbind");
	for (int n = 0; n < 400 && read_number("/proc/vmstat", "numa_pte_updates ") == before; n++)
		for (volatile int spin = 0; spin < 20000; spin++)
			relax();
}

static void scanned_before(void)
{
	balance();
	be_scanned();
	write_to("/proc/sys/kernel/numa_balancing", "0");
	own_pages();
}

static void swap_on(void) { expect(swapon("/dev/ram1", 0), "swapon"); }
static void swapped_before(void) { swap_on(); pageout(); }

/* 8 pages of the first huge one, which is split for it. */
static void part_swapped_before(void)
{
	swap_on();
	expect(madvise(area + 16 * PAGE, 8 * PAGE, MADV_PAGEOUT), "MADV_PAGEOUT");
}

static void swap_off(void) { expect(swapoff("/dev/ram1"), "swapoff"); }

static void half_unmapped_before(void) { expect(munmap(area, pages / 2 * PAGE), "munmap"); }

/* ---- the operations ---- */

static const struct call calls[] = {
	{ "nothing", nothing, nothing },
	{ "munmap", nothing, call_munmap },
	{ "mprotect_ro", nothing, read_only },
	{ "mprotect_rw", read_only, writable },
	{ "mprotect_none", nothing, inaccessible },
	{ "mprotect_back", inaccessible, writable },
	{ "mprotect_exec", nothing, executable },
	{ "mprotect_same", nothing, writable },
	{ "mprotect_pkey", allocate_key, protect_by_key },
	{ "munmap_hole", half_unmapped_before, call_munmap },
	{ "mmap_fixed", nothing, mmap_fixed },
	{ "mmap_none", nothing, mmap_none },
	{ "mmap_fixed_synced", start_writing_out, mmap_fixed },
	{ "brk_shrink", grow_heap, shrink_heap },
	{ "dontneed_locked", lock, dontneed_locked },
	{ "dontneed", nothing, dontneed },
	{ "madv_free", nothing, madv_free },
	{ "madv_cold", nothing, madv_cold },
	{ "pageout", nothing, pageout },
	{ "willneed", nothing, willneed },
	{ "madv_remove", nothing, madv_remove },
	{ "populate_read", nothing, populate_read },
	{ "populate_write", nothing, populate_write },
	{ "collapse", nothing, collapse },
	{ "mlock", nothing, lock },
	{ "munlock", lock, unlock },
	{ "read", nothing, read_area },
	{ "write", nothing, write_area },
	{ "write_heads", nothing, write_heads },
	{ "mem_write", open_memory, write_memory },
	{ "vmsplice", open_pipe, call_vmsplice },
	{ "membarrier", register_membarrier, call_membarrier },
	{ "remap_file_pages", nothing, call_remap_file_pages },
	{ "msync", nothing, call_msync },
	{ "msync_async", nothing, msync_async },
	{ "fsync", nothing, call_fsync },
	{ "sync_range", nothing, sync_range },
	{ "truncate", nothing, truncate_file },
	{ "truncate_half", nothing, truncate_half },
	{ "truncate_inside", nothing, truncate_inside },
	{ "pwrite", nothing, write_file },
	{ "punch", nothing, punch_hole },
	{ "punch_half", nothing, punch_half },
	{ "zero_range", nothing, zero_range },
	{ "mremap", nothing, call_mremap },
	{ "mremap_dontunmap", nothing, mremap_dontunmap },
	{ "mremap_shrink", nothing, mremap_shrink },
	{ "mremap_move_shrink", nothing, mremap_move_shrink },
	{ "mremap_move_grow", nothing, mremap_move_grow },
	{ "mremap_aligned", nothing, mremap_aligned },
	{ "move", list_area, move },
	{ "move_remote", nothing, nothing, CALLED_BY_ANOTHER },
	{ "cold_remote", nothing, nothing, CALLED_BY_ANOTHER },
	{ "pageout_remote", nothing, nothing, CALLED_BY_ANOTHER },
	{ "mbind", nothing, bind_area },
	{ "fork", keep_own_pages, call_fork },
	{ "vfork", nothing, call_vfork },
	{ "switch", make_ring, go_round },
	{ "cow_parent", fork_before, write_area },
	{ "cow_child", fork_writer, child_writes },
	{ "clear_young", open_refs, clear_young },
	{ "clear_refs", open_refs, clear_soft_dirty },
	{ "soft_dirty_write", soft_dirty_before, write_area },
	{ "uffd_wp", register_uffd, protect_uffd },
	{ "uffd_unwp", register_and_protect, unprotect_uffd },
	{ "uffd_unregister", register_and_protect, unregister_uffd },
	{ "uffd_copy", register_missing, copy_by_uffd },
	{ "uffd_zeropage", register_missing, zero_by_uffd },
	{ "ksm", nothing, merge },
	{ "unmerge", nothing, unmerge },
	{ "numa_scan", balance, be_scanned },
	{ "numa_hint_read", scanned_before, read_area },
	{ "numa_hint_write", scanned_before, write_area },
	{ "swapout", swap_on, pageout },
	{ "swapin", swapped_before, read_area },
	{ "swapped_munmap", swapped_before, call_munmap },
	{ "swapped_dontneed", swapped_before, dontneed },
	{ "swapped_ro", swapped_before, read_only },
	{ "swapped_write", swapped_before, write_area },
	{ "swapped_mremap", swapped_before, call_mremap },
	{ "swapped_off", swapped_before, swap_off },
	{ "mremap_mixed", part_swapped_before, mremap_aligned },
	{ "thread_exit", nothing, nothing, A_THREAD_EXITS },
	{ "exit", nothing, nothing, EXITS },
	{ "exit_last", nothing, nothing, EXITS | THREADS_GONE },
	{ 0 },
};

/* Names that are not made of a call and a kind of memory. */
static const char *const spelt[][2] = {
	{ "mprotect_file_ro", "mprotect_ro_dirty" },
	{ "private_file_write", "write_private_clean" },
	{ "shared_file_write", "write_clean" },
	{ "shared_tmpfs_write", "write_tmpfs_clean" },
	{ "reuse_after_fork", "write_reused" },
	{ "msync", "msync_dirty" },
	{ "msync_async", "msync_async_dirty" },
	{ "fsync", "fsync_dirty" },
	{ "sync_range", "sync_range_dirty" },
	{ "zero_range", "zero_range_dirty" },
	{ "move_shared", "move_elsewhere" },
	{ "ksm", "ksm_mergeable" },
	{ "unmerge", "unmerge_merged" },
	{ "ksm_write", "write_merged" },
	{ "thp_collapse", "collapse_small" },
	{ "thp_cow_parent", "write_heads_thp_forked" },
	{ "thp_mprotect_part", "thp_mprotect_ro_part" },
};

/* "thp_munmap" or "munmap_tmpfs": a word, and another before or behind it. */
static int is_made_of(const char *name, size_t length, const char *one, const char *other)
{
	size_t first = strlen(one), second = strlen(other);

	if (!second)
		return length == first && !strncmp(name, one, first);
	return length == first + 1 + second && !strncmp(name, one, first) && name[first] == '_' &&
	       !strncmp(name + first + 1, other, second);
}

static int find(const char *name, size_t length)
{
	for (call = calls; call->name; call++)
		for (kind = kinds; kind->name; kind++)
			if (is_made_of(name, length, call->name, kind->name) ||
			    is_made_of(name, length, kind->name, call->name))
				return 1;
	/* thp_munmap_part */
	for (call = calls; call->name; call++)
		for (kind = kinds; kind->name; kind++)
			if (!strncmp(kind->name, "thp_", 4) && !strncmp(name, "thp_", 4) &&
			    is_made_of(name + 4, length - 4, call->name, kind->name + 4))
				return 1;
	return 0;
}

/* "munmap_tmpfs_8": what is called, on what memory, and its `number`, 1 if there is none. */
int find_operation(const char *name)
{
	static const char before[] = "moved_then_";
	const char *last = strrchr(name, '_');
	size_t length = strlen(name);
	int also = 0;

	number = 1;
	if (last && last[1] >= '0' && last[1] <= '9') {
		number = atoi(last + 1);
		length = last - name;
	}
	if (!strncmp(name, before, strlen(before))) {
		static char rest[64];

		also = WITH_OTHERS;
		snprintf(rest, sizeof(rest), "%.*s", (int)(length - strlen(before)), name + strlen(before));
		if (!strcmp(rest, "ro") || !strcmp(rest, "none") || !strcmp(rest, "rw"))
			snprintf(rest, sizeof(rest), "mprotect_%.*s", (int)(length - strlen(before)),
				 name + strlen(before));
		name = rest;
		length = strlen(rest);
	}
	for (size_t n = 0; n < sizeof(spelt) / sizeof(*spelt); n++)
		if (strlen(spelt[n][0]) == length && !strncmp(spelt[n][0], name, length)) {
			name = spelt[n][1];
			length = strlen(name);
			break;
		}
	if (!find(name, length))
		return 0;
	flags = kind->flags | call->flags | also;
	return 1;
}

/* On CPU 0, after all have touched the memory. */
void prepare(void)
{
	kind->prepare();
	call->prepare();
	if (flags & WITH_OTHERS)
		move_others();
}

/* What another process does to the area of `pid`. */
int call_on_another(const char *name, pid_t pid)
{
	struct iovec range = { area, pages * PAGE };
	int advice = !strcmp(name, "cold_remote") ? MADV_COLD : MADV_PAGEOUT;

	if (!strcmp(name, "move_remote"))
		return move_listed(pid, pages);
	return syscall(SYS_process_madvise, syscall(SYS_pidfd_open, pid, 0), &range, 1, advice, 0) !=
	       (long)range.iov_len;
}
