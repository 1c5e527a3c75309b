/* What the two parts of the recorder's guest share. */
#include <sys/types.h>

#include "basics.h"

#define TABLE (1UL << 30)	/* 1 GiB: the first page of a table of every level but the top */
#define AREA ((char *)TABLE + 16 * PAGE)

enum { CALLED_BY_ANOTHER = 1, MAPPED_ELSEWHERE = 2, A_THREAD_EXITS = 4, EXITS = 8 };

struct operation {
	const char *name;	/* without the number of pages */
	void (*set_up)(void);	/* on CPU 0 */
	void (*touch)(void);	/* each thread on another CPU, after that */
	void (*prepare)(void);	/* on CPU 0, after that */
	void (*call)(void);	/* between the markers */
	int flags;
};

extern size_t pages;
extern const char *failed;
extern pid_t child;

const struct operation *find_operation(const char *name);
void own_pages(void);
void read_area(void);
void list_pages(char *at, size_t count, size_t step);
int move_listed(pid_t pid, size_t count);
