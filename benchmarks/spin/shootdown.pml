/*
 * The litmus test `shootdown` under mainline on sc, written for SPIN: operation for operation what CPU 0's and the
 * readers' programs do in emulator/kernel, each operation one atomic step, interrupts between any two of them.
 * What it asks is coherence (the assertion) and that nobody is stuck; our search asks more.
 */
#ifndef READERS
#define READERS 1
#endif

#define MIGRATION 3

byte entry = 1;             /* page table: the frame that is mapped, or a migration entry */
byte tlb[READERS + 1] = 1;  /* what each CPU has cached, 0 for nothing */
byte generation = 1;        /* of the mm */
byte seen[READERS + 1] = 1; /* up to which the CPU has flushed */
bool called[READERS + 1];   /* a flush is queued */
byte missing;               /* acknowledgements */
byte done;                  /* readers that are through */
byte references[3] = 2;
bool cleared[3];
bool free1;
bool isolated, ptl;
byte batched;

/* CPU 0: migrate_pages of frame 1, then alloc_pages, clear and free. Loads whose value is known are steps, too. */
active proctype cpu0()
{
	byte i, frame;
	bool mask;

	d_step { isolated = 1 };                       /* FolioIsolateLru */
	d_step { references[2] = 1 };                  /* AllocPages */
	d_step { mask = 1 };                           /* FolioRmap */
	d_step { !ptl -> ptl = 1 };                    /* Lock */
	d_step { mask = 1 };                           /* Load mm_cpumask */
	d_step { entry = MIGRATION };                  /* TryToMigratePte */
	d_step { generation++ };                       /* AtomicAdd tlb_gen */
	d_step { mask = 1 };                           /* Load mm_cpumask */
	d_step { batched++ };                          /* AtomicAdd tlb_flush_batched */
	d_step { references[1]-- };                    /* FolioPut */
	d_step { ptl = 0 };                            /* Unlock */
	d_step { mask = 1 };                           /* Load is_lazy of each, in one series */
	d_step {                                       /* SendIpi */
		missing = READERS;
		i = 1;
		do
		:: i <= READERS -> called[i] = 1; i++
		:: else -> break
		od;
		i = 0
	};
	d_step { mask = 1 };                           /* LocalIrqDisable */
	if
	:: d_step { seen[0] == generation -> skip }    /* Load tlb_gen */
	:: d_step { seen[0] != generation -> skip };
	   d_step { tlb[0] = 0; seen[0] = generation } /* FlushTlb */
	fi;
	d_step { mask = 1 };                           /* LocalIrqEnable */
	d_step { missing == 0 -> skip };               /* WaitAcks */
	d_step { mask = 0 };                           /* SmpRmb */
	d_step { cleared[2] = 0 };                     /* FolioCopy */
	d_step { references[2]++ };                    /* FolioMigrateMapping */
	d_step { isolated = 0 };                       /* LruAdd */
	d_step { references[2]++ };                    /* FolioGet */
	d_step { entry = 2 };                          /* CmpxchgPte */
	d_step { references[2]-- };                    /* FolioPut */
	d_step { references[1]--; free1 = 1 };         /* FolioPut: to the allocator */
	d_step { free1 = 0; references[1]++ };         /* AllocPages */
	d_step { cleared[1] = 1 };                     /* FolioZero */
	d_step { references[1]--; free1 = 1 };         /* FolioPut */
	d_step { done == READERS -> skip }             /* WaitFor litmus.done */
}

/* A reader: what is cached is compared with the page table, then a user's read, with its walk and fault. */
active [READERS] proctype reader()
{
	byte pc, irq, cached, waits;
	byte me = _pid;

end:	do
	:: d_step { called[me] && irq == 0 && pc != 4 -> called[me] = 0; irq = 1 }                  /* the interrupt; an access is one instruction */
	:: d_step { irq == 1 -> waits = 0; irq = (seen[me] == generation -> 3 : 2) }    /* Load tlb_gen */
	:: d_step { irq == 2 -> tlb[me] = 0; seen[me] = generation; irq = 3 }           /* FlushTlb */
	:: d_step { irq == 3 -> missing--; irq = 4 }                                    /* AckIpi */
	:: d_step { irq == 4 -> irq = 0 }                                               /* Iret */

	:: d_step { irq == 0 && pc == 0 -> pc = (tlb[me] != 0 -> 1 : 2) }               /* Translate */
	:: d_step { irq == 0 && pc == 1 -> pc = 2 }                                     /* GetPte */
	:: d_step { irq == 0 && pc == 2 -> cached = tlb[me]; pc = (cached != 0 -> 4 : 3) } /* Translate */
	:: d_step { irq == 0 && pc == 3 ->                                              /* Walk */
		if
		:: entry != MIGRATION -> tlb[me] = entry; cached = entry; pc = 4
		:: else -> pc = 5
		fi }
	:: d_step { irq == 0 && pc == 4 ->                                              /* ReadFrame */
		assert(!cleared[cached]);
		cached = 0;
		pc = 8 }
	:: d_step { irq == 0 && pc == 5 -> pc = 6 }                                     /* FindVma */
	:: d_step { irq == 0 && pc == 6 -> pc = (entry == MIGRATION -> 7 : 2) }         /* GetPte */
	:: d_step { irq == 0 && pc == 7 && entry != MIGRATION -> pc = 2 }               /* WaitPte */
	:: d_step { irq == 0 && pc == 8 -> done++; pc = 9 }                             /* AtomicAdd litmus.done */
	od
}
