/* What the parts of the recorder's guest share. */
#include <stddef.h>
#include <sys/types.h>

#include "basics.h"

#define HUGE (512 * PAGE)
#define TABLE (1UL << 30)	/* 1 GiB: the first page of a table of every level but the top */
#define AREA ((char *)TABLE + 16 * PAGE)
#define ELSEWHERE ((char *)(2 * TABLE) + 16 * PAGE)
#define OTHERS (AREA + 0x400 * PAGE)
#define MOVED_BEFORE 32

enum {
	CALLED_BY_ANOTHER = 1,	/* another process calls, on CPU 0 */
	MAPPED_ELSEWHERE = 2,	/* a process on CPU 3 maps the file as well */
	A_THREAD_EXITS = 4,
	EXITS = 8,
	WITH_OTHERS = 16,	/* 32 other pages were moved before */
	THREADS_GONE = 32,	/* the other threads have exited before, and their CPUs are idle */
};

/* Memory that something is called on: what it is called, CPU 0 sets it up, the other threads touch it. */
struct kind {
	const char *name;
	void (*set_up)(void);
	void (*touch)(void);
	void (*prepare)(void);	/* on CPU 0, after the others have touched it */
	int flags;
};

/* What is called on it, between the markers, and what comes before. */
struct call {
	const char *name;
	void (*prepare)(void);
	void (*call)(void);
	int flags;
};

/* areas.c */
extern const struct kind kinds[];
extern size_t number;	/* the one in the operation's name, 1 without */
extern char *area;	/* what is called on: its first page, and how many */
extern size_t pages;
extern int fd;		/* the file that is mapped, if one is */
extern pid_t child;
extern const char *failed;	/* what did not do what it was to do */

void expect(int result, const char *what);
void nothing(void);
void map_anonymous(char *at, size_t count);
void map_tmpfs(char *at, size_t count, int flags);
void fill_at(char *at, size_t count);
void write_at(char *at, size_t count);
void read_at(char *at, size_t count);
void write_area(void);
void read_area(void);
void read_only(void);
void inaccessible(void);
void fork_before(void);
void each_own_range(void (*visit)(unsigned long start, unsigned long end));
void own_pages(void);

/* operations.c */
extern const struct kind *kind;
extern const struct call *call;
extern int flags;	/* of both, and of how they are put together */

int find_operation(const char *name);
void prepare(void);
void list_pages(char *at, size_t count, size_t step);
int move_listed(pid_t pid, size_t count);
int call_on_another(const char *name, pid_t pid);

/* guest.c */
void tell(int to);
void hear(int from);
void make_ring(void);
void go_round(void);
long read_number(const char *path, const char *key);
