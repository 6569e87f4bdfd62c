/*
 * A layer between the program and its files, for directories whose names begin with "simulated-disk.": it writes down
 * every change of what is in them, and lets calls fail there when it is told to. All other files are left alone.
 *
 * These functions take the place of the C library's, since the program that is linked with them finds them first. What
 * calls the kernel past the C library is not seen; of what the store does so, only renames over a file matter, and these
 * show when the new name is opened (OPENED).
 *
 * A disk listens to what is written to the file ".control" in it, one command a call:
 *
 *   begin        from now on changes are written down, in a file beside the directory, named as it with ".trace" behind
 *   arm K N      the call after the next N fails: K is b (killed before it), h (killed in the middle of it), a (killed
 *                after it), s (a sync fails; N counts syncs), f (no space from then on)
 *   kill         from now on nothing changes any more: the process is dead
 *   calm         nothing goes wrong any more; a process that was killed stays dead
 *   live         a new process: nothing fails
 *   end          nothing is written down any more
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MARK "/simulated-disk."
#define DISKS_MAX 64
#define HANDLES_MAX 65536
#define PATH_BYTES 512

/* Kinds of records; those up to 9 are the tracer's of the end-to-end tests. */
enum { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MAKE_DIR, REMOVE_DIR, LINK, OPENED, STRUCK };

/* What becomes of a call. */
enum fate { DONE, FAILS, HALF, LOST };

struct disk {
    char root[PATH_BYTES];
    int trace;
    unsigned life;
    bool dead, full;
    char armed;
    long left;
};

struct handle {
    struct disk *disk;
    unsigned life;
    bool control;
    ino_t inode;
    char path[PATH_BYTES];
};

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct disk disks[DISKS_MAX];
static struct handle *handles[HANDLES_MAX];

/* The length of the disk's own path in that of a file; 0: it is on no such disk. */
static size_t root_length(const char *path)
{
    const char *mark = path ? strstr(path, MARK) : NULL;
    const char *end = mark ? strchr(mark + 1, '/') : NULL;
    if (mark && !end && !strstr(mark, ".trace"))
        end = path + strlen(path);
    return end && strlen(path) < PATH_BYTES ? (size_t)(end - path) : 0;
}

static struct disk *disk_of(const char *path)
{
    size_t length = root_length(path);
    for (int it = 0; length && it < DISKS_MAX; it++)
        if (strncmp(disks[it].root, path, length) == 0 && disks[it].root[length] == 0)
            return &disks[it];
    return NULL;
}

static void note(struct disk *disk, uint32_t kind, const char *path, const char *path2, uint32_t truncates, uint64_t inode,
                 uint64_t offset, const void *bytes, uint64_t length)
{
    uint32_t numbers[4] = {kind, (uint32_t)strlen(path), path2 ? (uint32_t)strlen(path2) : 0, truncates};
    uint64_t places[3] = {inode, offset, length};
    struct iovec parts[5] = {{numbers, sizeof numbers},
                             {places, sizeof places},
                             {(void *)path, numbers[1]},
                             {(void *)path2, numbers[2]},
                             {(void *)bytes, bytes ? length : 0}};
    if (syscall(SYS_writev, disk->trace, parts, 5) < 0)
        abort();
}

/* Decides about a call that changes something. */
static enum fate fate(struct disk *disk, unsigned life, bool syncs, bool grows)
{
    if (disk->dead || life != disk->life) {
        errno = EIO;
        return FAILS;
    }
    if (disk->full && grows) {
        errno = ENOSPC;
        return FAILS;
    }
    if (!disk->armed || (disk->armed == 's' && !syncs) || disk->left-- > 0)
        return DONE;
    char armed = disk->armed;
    disk->armed = 0;
    note(disk, STRUCK, disk->root, NULL, 0, 0, 0, NULL, 0);
    disk->full = armed == 'f';
    disk->dead = armed == 'b' || armed == 'h' || armed == 'a';
    errno = armed == 'f' ? ENOSPC : EIO;
    switch (armed) {
    case 'a':
        return LOST;
    case 'h':
        return HALF;
    case 'f':
        return grows ? FAILS : DONE;
    default:
        return FAILS;
    }
}

static void command(struct disk *disk, const char *text)
{
    char kind;
    long left;
    if (strncmp(text, "kill", 4) == 0) {
        disk->dead = true;
    } else if (strncmp(text, "calm", 4) == 0) {
        disk->full = false;
        disk->armed = 0;
    } else if (strncmp(text, "live", 4) == 0) {
        disk->dead = disk->full = false;
        disk->armed = 0;
        disk->life++;
    } else if (sscanf(text, "arm %c %ld", &kind, &left) == 2) {
        disk->armed = kind;
        disk->left = left;
    } else if (strncmp(text, "end", 3) == 0) {
        syscall(SYS_close, disk->trace);
        disk->root[0] = 0;
    }
}

static bool begin(const char *path)
{
    char trace[PATH_BYTES + 8];
    size_t length = root_length(path);
    for (int it = 0; it < DISKS_MAX; it++) {
        struct disk *disk = &disks[it];
        if (disk->root[0])
            continue;
        snprintf(trace, sizeof trace, "%.*s.trace", (int)length, path);
        int file = (int)syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        if (file < 0)
            return false;
        /* Handles of an earlier disk in this place are of another life. */
        *disk = (struct disk){.trace = file, .life = disk->life + 1};
        memcpy(disk->root, path, length);
        return true;
    }
    return false;
}

static struct handle *handle_of(int file)
{
    return file >= 0 && file < HANDLES_MAX ? handles[file] : NULL;
}

static void forget(int file)
{
    if (handle_of(file)) {
        free(handles[file]);
        handles[file] = NULL;
    }
}

static int open_control(const char *path)
{
    int file = (int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY | O_CLOEXEC, 0);
    struct handle *handle = file >= 0 && file < HANDLES_MAX ? calloc(1, sizeof *handle) : NULL;
    if (!handle)
        return file;
    handle->control = true;
    handle->disk = disk_of(path);
    strcpy(handle->path, path);
    forget(file);
    handles[file] = handle;
    return file;
}

static int open_here(int dir, const char *path, int flags, mode_t mode)
{
    size_t length = dir == AT_FDCWD ? root_length(path) : 0;
    if (!length)
        return (int)syscall(SYS_openat, dir, path, flags, mode);
    pthread_mutex_lock(&guard);
    int file = -1;
    struct disk *disk = disk_of(path);
    if (strcmp(path + length, "/.control") == 0) {
        file = open_control(path);
        goto out;
    }
    bool changes = flags & (O_CREAT | O_TRUNC);
    enum fate decided = disk && changes ? fate(disk, disk->life, false, flags & O_CREAT) : DONE;
    if (decided == FAILS || decided == HALF)
        goto out;
    file = (int)syscall(SYS_openat, dir, path, flags, mode);
    struct handle *handle = disk && file >= 0 && file < HANDLES_MAX ? calloc(1, sizeof *handle) : NULL;
    if (!handle)
        goto out;
    struct stat status;
    fstat(file, &status);
    handle->disk = disk;
    handle->life = disk->life;
    handle->inode = status.st_ino;
    strcpy(handle->path, path);
    forget(file);
    handles[file] = handle;
    if (flags & O_CREAT)
        note(disk, CREATE, path, NULL, (flags & O_TRUNC) != 0, status.st_ino, 0, NULL, 0);
    else if (flags & O_TRUNC)
        note(disk, TRUNCATE, path, NULL, 0, status.st_ino, 0, NULL, 0);
    else if (!disk->dead)
        note(disk, OPENED, path, NULL, 0, status.st_ino, 0, NULL, 0);
    if (decided == LOST) {
        forget(file);
        syscall(SYS_close, file);
        file = -1;
        errno = EIO;
    }
out:
    pthread_mutex_unlock(&guard);
    return file;
}

static mode_t mode_in(int flags, va_list rest)
{
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_in(flags, rest);
    va_end(rest);
    return open_here(AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_in(flags, rest);
    va_end(rest);
    return open_here(AT_FDCWD, path, flags, mode);
}

int close(int file)
{
    if (handle_of(file)) {
        pthread_mutex_lock(&guard);
        forget(file);
        pthread_mutex_unlock(&guard);
    }
    return (int)syscall(SYS_close, file);
}

static ssize_t write_here(struct handle *handle, int file, const void *bytes, size_t length)
{
    struct disk *disk = handle->disk;
    if (handle->control) {
        char text[64] = {0};
        memcpy(text, bytes, length < sizeof text - 1 ? length : sizeof text - 1);
        if (strncmp(text, "begin", 5) == 0)
            return begin(handle->path) ? (ssize_t)length : -1;
        if (disk)
            command(disk, text);
        return (ssize_t)length;
    }
    enum fate decided = fate(disk, handle->life, false, true);
    if (decided == FAILS)
        return -1;
    size_t wanted = decided == HALF ? length / 2 : length;
    ssize_t written = syscall(SYS_write, file, bytes, wanted);
    if (written > 0) {
        off_t end = lseek(file, 0, SEEK_CUR);
        note(disk, WRITE, handle->path, NULL, 0, handle->inode, (uint64_t)(end - written), bytes, (uint64_t)written);
    }
    if (decided == DONE)
        return written;
    errno = EIO;
    return -1;
}

ssize_t write(int file, const void *bytes, size_t length)
{
    if (!handle_of(file))
        return syscall(SYS_write, file, bytes, length);
    pthread_mutex_lock(&guard);
    ssize_t written = write_here(handles[file], file, bytes, length);
    pthread_mutex_unlock(&guard);
    return written;
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    if (!handle_of(file))
        return syscall(SYS_writev, file, parts, count);
    /* As much as the first part that is not empty: who asks goes on with the rest. */
    for (int it = 0; it < count; it++)
        if (parts[it].iov_len)
            return write(file, parts[it].iov_base, parts[it].iov_len);
    return 0;
}

/* What nothing on such a disk does: a test that reaches it has to learn it. */
static void unknown(int file, const char *call)
{
    if (handle_of(file)) {
        fprintf(stderr, "the layer of the simulated disk does not know %s\n", call);
        abort();
    }
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset)
{
    unknown(file, "pwrite");
    return syscall(SYS_pwrite64, file, bytes, length, offset);
}

int ftruncate64(int file, off64_t length)
{
    if (!handle_of(file))
        return (int)syscall(SYS_ftruncate, file, length);
    pthread_mutex_lock(&guard);
    struct handle *handle = handles[file];
    enum fate decided = fate(handle->disk, handle->life, false, false);
    int result = -1;
    if (decided == DONE || decided == LOST) {
        result = (int)syscall(SYS_ftruncate, file, length);
        if (result == 0)
            note(handle->disk, TRUNCATE, handle->path, NULL, 0, handle->inode, (uint64_t)length, NULL, 0);
    }
    pthread_mutex_unlock(&guard);
    if (decided == LOST)
        errno = EIO;
    return decided == DONE ? result : -1;
}

static int sync_here(int file, long number)
{
    if (!handle_of(file))
        return (int)syscall(number, file);
    pthread_mutex_lock(&guard);
    struct handle *handle = handles[file];
    /* Nothing reaches the kernel: what is durable is the model's to say. */
    enum fate decided = fate(handle->disk, handle->life, true, false);
    if (decided == DONE || decided == LOST)
        note(handle->disk, SYNC, handle->path, NULL, 0, handle->inode, 0, NULL, 0);
    pthread_mutex_unlock(&guard);
    if (decided == LOST)
        errno = EIO;
    return decided == DONE ? 0 : -1;
}

int fsync(int file)
{
    return sync_here(file, SYS_fsync);
}

int fdatasync(int file)
{
    return sync_here(file, SYS_fdatasync);
}

/* A call on names: `kind` is what it is in the trace. */
static int names(uint32_t kind, bool grows, const char *path, const char *path2, long number, long a, long b, long c, long d)
{
    pthread_mutex_lock(&guard);
    struct disk *disk = disk_of(path);
    enum fate decided = disk ? fate(disk, disk->life, false, grows) : DONE;
    int result = -1;
    if (decided == DONE || decided == LOST) {
        result = (int)syscall(number, a, b, c, d);
        if (result == 0 && disk)
            note(disk, kind, path, path2, 0, 0, 0, NULL, 0);
    }
    int error = decided == LOST ? EIO : errno;
    pthread_mutex_unlock(&guard);
    errno = error;
    return decided == DONE ? result : -1;
}

int rename(const char *from, const char *to)
{
    return names(RENAME, false, from, to, SYS_renameat, AT_FDCWD, (long)from, AT_FDCWD, (long)to);
}

int unlink(const char *path)
{
    return names(UNLINK, false, path, NULL, SYS_unlinkat, AT_FDCWD, (long)path, 0, 0);
}

int rmdir(const char *path)
{
    return names(REMOVE_DIR, false, path, NULL, SYS_unlinkat, AT_FDCWD, (long)path, AT_REMOVEDIR, 0);
}

int mkdir(const char *path, mode_t mode)
{
    return names(MAKE_DIR, true, path, NULL, SYS_mkdirat, AT_FDCWD, (long)path, (long)mode, 0);
}

int linkat(int dir, const char *from, int dir2, const char *to, int flags)
{
    if (disk_of(from))
        fprintf(stderr, "the layer of the simulated disk does not know linkat\n"), abort();
    return (int)syscall(SYS_linkat, dir, from, dir2, to, flags);
}

/* Whole trees are removed name by name, below a handle of their directory. */
int openat64(int dir, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = mode_in(flags, rest);
    va_end(rest);
    struct handle *above = handle_of(dir);
    char whole[PATH_BYTES];
    if (!above || above->control || path[0] == '/')
        return open_here(dir, path, flags, mode);
    if (snprintf(whole, sizeof whole, "%s/%s", above->path, path) >= (int)sizeof whole)
        abort();
    return open_here(AT_FDCWD, whole, flags, mode);
}

int unlinkat(int dir, const char *path, int flags)
{
    struct handle *above = handle_of(dir);
    char whole[PATH_BYTES];
    const char *named = path;
    if (above && !above->control && path[0] != '/') {
        if (snprintf(whole, sizeof whole, "%s/%s", above->path, path) >= (int)sizeof whole)
            abort();
        named = whole;
    }
    uint32_t kind = flags & AT_REMOVEDIR ? REMOVE_DIR : UNLINK;
    return names(kind, false, named, NULL, SYS_unlinkat, dir, (long)path, flags, 0);
}
