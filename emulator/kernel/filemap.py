"""The page cache as write(2) and truncation use it: by its folios, past all mappings (mm/filemap.c, v6.6).

Who has the page mapped finds what was written where the page is, so nothing is flushed. The folio's lock
keeps the page there meanwhile: migration holds it from before it unmaps until everything is mapped again.
"""

from __future__ import annotations

from emulator.hardware.operations import (
    FilemapAdd,
    FilemapGet,
    FolioMapping,
    FolioPut,
    FolioSetFlag,
    FolioZero,
    Load,
    Lock,
    LruAdd,
    Series,
    Store,
    Unlock,
    WriteFrame,
)
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import INIT_MM, PerCpu, folio_lock, i_size_word, inode_lock
from emulator.memory.folios import PG_DIRTY


async def filemap_get_folio(cpu: PerCpu, file: int, pgoff: int, create: bool) -> int:
    """__filemap_get_folio with FGP_LOCK: the folio, locked and with a reference; read in first if it is to
    `create` one, else -1 where the cache has none."""
    while True:
        pfn = await FilemapGet(file, pgoff)
        if pfn < 0 and not create:
            return -1
        if pfn < 0:
            pfn = await alloc_pages(cpu, 0)
            await FolioZero(pfn)
            present = await FilemapAdd(file, pgoff, pfn)
            if present >= 0:
                await FolioPut(pfn)
                pfn = present
            else:
                await LruAdd(pfn, False)
        _, slot = await Series((Lock(folio_lock(file, pgoff)), FolioMapping(pfn)))
        if slot == (file, pgoff):
            return pfn
        await filemap_put_folio(file, pgoff, pfn)


async def filemap_put_folio(file: int, pgoff: int, pfn: int) -> None:
    """folio_unlock and folio_put of what `filemap_get_folio` has answered."""
    await Series((Unlock(folio_lock(file, pgoff)), FolioPut(pfn)))


async def ext4_buffered_write_iter(cpu: PerCpu, file: int, pgoff: int, value: int) -> None:
    """ext4_buffered_write_iter (fs/ext4/file.c), shmem_file_write_iter: write(2), with the inode's lock held,
    so that neither another write nor ftruncate comes between; and the end of vfs_write."""
    await Lock(inode_lock(file))
    await generic_perform_write(cpu, file, pgoff, value)
    await Unlock(inode_lock(file))
    await cpu.policy.file_written(cpu, file)


async def generic_perform_write(cpu: PerCpu, file: int, pgoff: int, value: int) -> None:
    """generic_perform_write of one whole page: `value` becomes its content, in the page cache.

    The user's buffer is left out, and so is what is written elsewhere in the page.
    """
    # write_begin
    pfn = await filemap_get_folio(cpu, file, pgoff, True)
    await cpu.policy.page_cache_changed(cpu, file)
    # copy_page_from_iter_atomic
    await WriteFrame(INIT_MM, pgoff, pfn, value)
    # write_end
    await FolioSetFlag(pfn, PG_DIRTY)
    if cpu.parameters.file_sizes and await Load(i_size_word(file)) <= pgoff:
        await Store(i_size_word(file), pgoff + 1)
    await filemap_put_folio(file, pgoff, pfn)
