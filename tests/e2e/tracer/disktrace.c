/* Runs a command and watches what it does to the files of one directory, from outside: by ptrace, so that no call
 * is missed whichever library makes it.
 *
 *   disktrace -r DIR [-t TRACE] [-j PART] [-k POINT:N] [-f FAULT:N] -- COMMAND...
 *
 * -t  writes every change below DIR into TRACE, in the order the kernel took them (struct record, then two paths and
 *     the bytes). A record is in TRACE before the command goes on.
 * -k  kills the command with SIGKILL at the Nth time it comes to POINT with a journal (a file named *.jnl):
 *     before-write, in-write (half of the bytes are written), before-sync, after-sync.
 * -j  counts, for -k and -f, only the journals with PART in their path.
 * -f  lets calls fail: sync-eio (the Nth sync of a journal, once) or full (no space below DIR from the Nth journal
 *     write on).
 *
 * SIGTERM is passed on. After SIGUSR1 no watched call begins any more; once those under way have ended, and are in TRACE,
 * the command is killed with SIGKILL: a call that the kernel had done and the tracer had not written down would be missing
 * in TRACE, and with it the bytes before those of the next run. The files are free once the tracer has ended. The exit status
 * is the command's, 128 + n after signal n, 125 for trouble of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, MKDIR, RMDIR, LINK, ODD };

struct record {
    uint32_t kind, path_len, path2_len, truncates;
    uint64_t inode, offset, len; /* TRUNCATE: offset is the new length; len bytes follow only a WRITE */
};

#define THREADS_MAX 1024
struct thread {
    pid_t tid;
    uint64_t nr, args[6];
    int dies; /* once this call is done */
    int in_call;
};

static struct thread threads[THREADS_MAX];
static char root[PATH_MAX];
static size_t root_len;
static int trace_fd = -1;
static const char *kill_point = "", *fault = "", *journals = "";
static long kill_at, fault_at, writes_seen, syncs_seen;
static int full;
static pid_t child;
static volatile sig_atomic_t kill_wanted;

static void fail(const char *what) {
    fprintf(stderr, "disktrace: %s: %s\n", what, strerror(errno));
    exit(125);
}

static struct thread *thread_of(pid_t tid, int *is_new) {
    struct thread *empty = NULL;
    *is_new = 0;
    for (int i = 0; i < THREADS_MAX; i++) {
        if (threads[i].tid == tid) return &threads[i];
        if (threads[i].tid == 0 && empty == NULL) empty = &threads[i];
    }
    if (empty == NULL) fail("too many threads");
    memset(empty, 0, sizeof *empty);
    empty->tid = tid;
    *is_new = 1;
    return empty;
}

static int is_below_root(const char *path) {
    return strncmp(path, root, root_len) == 0 && (path[root_len] == '/' || path[root_len] == 0);
}

static int is_journal(const char *path) {
    size_t len = strlen(path);
    return len > 4 && strcmp(path + len - 4, ".jnl") == 0 && strstr(path + root_len, journals) != NULL;
}

/* What a descriptor of the command stands for. */
static int path_of_fd(pid_t tid, int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0) return -1;
    path[len] = 0;
    return 0;
}

static uint64_t inode_of_fd(pid_t tid, int fd) {
    char link[64];
    struct stat stat_of;
    snprintf(link, sizeof link, "/proc/%d/fd/%d", tid, fd);
    return stat(link, &stat_of) == 0 ? stat_of.st_ino : 0;
}

static uint64_t position_of_fd(pid_t tid, int fd) {
    char name[64];
    unsigned long long position = 0;
    snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", tid, fd);
    FILE *info = fopen(name, "r");
    if (info == NULL || fscanf(info, "pos: %llu", &position) != 1) fail("a descriptor has no position");
    fclose(info);
    return position;
}

/* Where the next write of a descriptor goes: one that appends writes at the end, wherever it stands. */
static uint64_t next_write_of_fd(pid_t tid, int fd) {
    char name[64];
    unsigned int flags = 0;
    snprintf(name, sizeof name, "/proc/%d/fdinfo/%d", tid, fd);
    FILE *info = fopen(name, "r");
    if (info == NULL || fscanf(info, "pos: %*u flags: %o", &flags) != 1) fail("a descriptor has no flags");
    fclose(info);
    if ((flags & O_APPEND) == 0) return position_of_fd(tid, fd);
    struct stat stat_of;
    snprintf(name, sizeof name, "/proc/%d/fd/%d", tid, fd);
    if (stat(name, &stat_of) != 0) fail("a file has no length");
    return (uint64_t)stat_of.st_size;
}

/* A path argument, made absolute by the directory it is relative to. */
static int path_argument(pid_t tid, int dir_fd, uint64_t address, char *path) {
    char text[PATH_MAX];
    size_t len = 0;
    while (len + 256 < sizeof text) {
        struct iovec local = {text + len, 256}, remote = {(void *)(uintptr_t)(address + len), 256};
        ssize_t got = process_vm_readv(tid, &local, 1, &remote, 1, 0);
        if (got <= 0) { /* near the end of a mapping: byte by byte */
            local.iov_len = remote.iov_len = 1;
            got = process_vm_readv(tid, &local, 1, &remote, 1, 0);
            if (got <= 0) return -1;
        }
        if (memchr(text + len, 0, (size_t)got) != NULL) break;
        len += (size_t)got;
    }
    text[sizeof text - 1] = 0;
    if (text[0] == '/') {
        snprintf(path, PATH_MAX, "%s", text);
        return 0;
    }
    char base[PATH_MAX];
    if (dir_fd == AT_FDCWD) {
        char link[64];
        snprintf(link, sizeof link, "/proc/%d/cwd", tid);
        ssize_t got = readlink(link, base, sizeof base - 1);
        if (got < 0) return -1;
        base[got] = 0;
    } else if (path_of_fd(tid, dir_fd, base) != 0) {
        return -1;
    }
    return snprintf(path, PATH_MAX, "%.2000s/%.2000s", base, text) < PATH_MAX ? 0 : -1;
}

/* Copies what a write takes: `address` is a buffer, or with `vectors` > 0 an array of them. */
static char *bytes_of_write(pid_t tid, uint64_t address, uint64_t vectors, uint64_t len) {
    char *bytes = malloc(len + 1);
    if (bytes == NULL) fail("memory");
    struct iovec one = {(void *)(uintptr_t)address, len}, many[64];
    struct iovec *remote = &one;
    uint64_t count = 1;
    if (vectors > 0) {
        if (vectors > 64) fail("a write of more than 64 parts");
        struct iovec local = {many, vectors * sizeof many[0]}, list = {(void *)(uintptr_t)address, local.iov_len};
        if (process_vm_readv(tid, &local, 1, &list, 1, 0) != (ssize_t)local.iov_len) fail("the parts of a write");
        remote = many;
        count = vectors;
    }
    struct iovec local = {bytes, len};
    if (process_vm_readv(tid, &local, 1, remote, count, 0) != (ssize_t)len) fail("the bytes of a write");
    return bytes;
}

static void emit(struct record record, const char *path, const char *path2, const char *bytes) {
    if (trace_fd < 0) return;
    record.path_len = (uint32_t)strlen(path);
    record.path2_len = (uint32_t)strlen(path2);
    size_t data = record.kind == WRITE ? record.len : 0;
    struct iovec parts[4] = {{&record, sizeof record},
                             {(void *)(uintptr_t)path, record.path_len},
                             {(void *)(uintptr_t)path2, record.path2_len},
                             {(void *)(uintptr_t)bytes, data}};
    ssize_t whole = (ssize_t)(sizeof record + record.path_len + record.path2_len + data);
    if (writev(trace_fd, parts, 4) != whole) fail("the trace");
}

/* Makes the call do nothing and answer -error. */
static void answer_instead(pid_t tid, int error) {
#if defined(__x86_64__)
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, tid, 0, &regs) != 0) fail("registers");
    regs.orig_rax = (unsigned long long)-1;
    regs.rax = (unsigned long long)-error;
    if (ptrace(PTRACE_SETREGS, tid, 0, &regs) != 0) fail("registers");
#elif defined(__aarch64__)
    struct user_regs_struct regs;
    int none = -1;
    struct iovec set = {&regs, sizeof regs}, number = {&none, sizeof none};
    if (ptrace(PTRACE_GETREGSET, tid, 1 /* NT_PRSTATUS */, &set) != 0) fail("registers");
    regs.regs[0] = (unsigned long long)-error;
    if (ptrace(PTRACE_SETREGSET, tid, 1, &set) != 0) fail("registers");
    if (ptrace(PTRACE_SETREGSET, tid, 0x404 /* NT_ARM_SYSTEM_CALL */, &number) != 0) fail("registers");
#else
#error "calls cannot be answered on this processor"
#endif
}

static void die(void) { kill(child, SIGKILL); }

/* Writes the first half of what a write was to write, in its stead. */
static void write_half(pid_t tid, int fd, uint64_t address, uint64_t vectors, uint64_t len, uint64_t offset) {
    char name[64];
    char *bytes = bytes_of_write(tid, address, vectors, len);
    snprintf(name, sizeof name, "/proc/%d/fd/%d", tid, fd);
    int file = open(name, O_WRONLY);
    if (file < 0 || pwrite(file, bytes, len / 2, (off_t)offset) != (ssize_t)(len / 2)) fail("half a write");
    close(file);
    free(bytes);
}

static uint64_t length_of_write(pid_t tid, const struct thread *it) {
    if (it->nr != SYS_writev && it->nr != SYS_pwritev) return it->args[2];
    struct iovec many[64], local = {many, it->args[2] * sizeof many[0]};
    struct iovec list = {(void *)(uintptr_t)it->args[1], local.iov_len};
    if (it->args[2] > 64 || process_vm_readv(tid, &local, 1, &list, 1, 0) != (ssize_t)local.iov_len) fail("a write");
    uint64_t len = 0;
    for (uint64_t i = 0; i < it->args[2]; i++) len += many[i].iov_len;
    return len;
}

static int is_write(uint64_t nr) {
    return nr == SYS_write || nr == SYS_pwrite64 || nr == SYS_writev || nr == SYS_pwritev;
}

static int is_sync(uint64_t nr) { return nr == SYS_fsync || nr == SYS_fdatasync; }

static int is_by_fd(uint64_t nr) {
    return is_write(nr) || is_sync(nr) || nr == SYS_ftruncate || nr == SYS_fallocate || nr == SYS_copy_file_range;
}

/* A call begins. Answers whether its end matters. */
static int begins(pid_t tid, struct thread *it) {
    char path[PATH_MAX];
    it->dies = 0;
    if (!is_by_fd(it->nr)) {
        if (full && it->nr == SYS_openat && (it->args[2] & O_CREAT) != 0 &&
            path_argument(tid, (int)it->args[0], it->args[1], path) == 0 && is_below_root(path) &&
            access(path, F_OK) != 0) {
            answer_instead(tid, ENOSPC);
            return 0;
        }
        return 1;
    }
    int fd = (int)it->args[it->nr == SYS_copy_file_range ? 2 : 0];
    if (path_of_fd(tid, fd, path) != 0 || !is_below_root(path)) return 0;
    int journal = is_journal(path);
    if (is_write(it->nr)) {
        if (journal) writes_seen++;
        if (strcmp(fault, "full") == 0 && writes_seen >= fault_at) full = 1;
        if (journal && writes_seen == kill_at && strcmp(kill_point, "before-write") == 0) return die(), 1;
        if (journal && writes_seen == kill_at && strcmp(kill_point, "in-write") == 0) {
            int at_given = it->nr == SYS_pwrite64 || it->nr == SYS_pwritev;
            int parts = it->nr == SYS_writev || it->nr == SYS_pwritev;
            write_half(tid, fd, it->args[1], parts ? it->args[2] : 0, length_of_write(tid, it),
                       at_given ? it->args[3] : next_write_of_fd(tid, fd));
            return die(), 1;
        }
    }
    if (full && (is_write(it->nr) || it->nr == SYS_ftruncate)) return answer_instead(tid, ENOSPC), 0;
    if (is_sync(it->nr) && journal) {
        syncs_seen++;
        if (syncs_seen == kill_at && strcmp(kill_point, "before-sync") == 0) return die(), 1;
        it->dies = syncs_seen == kill_at && strcmp(kill_point, "after-sync") == 0;
        if (syncs_seen == fault_at && strcmp(fault, "sync-eio") == 0) return answer_instead(tid, EIO), 0;
    }
    return 1;
}

static void note_fd_call(pid_t tid, const struct thread *it, int64_t result) {
    char path[PATH_MAX];
    int fd = (int)it->args[it->nr == SYS_copy_file_range ? 2 : 0];
    if (path_of_fd(tid, fd, path) != 0 || !is_below_root(path)) return;
    struct record record = {.inode = inode_of_fd(tid, fd)};
    if (is_write(it->nr)) {
        int at_given = it->nr == SYS_pwrite64 || it->nr == SYS_pwritev;
        int parts = it->nr == SYS_writev || it->nr == SYS_pwritev;
        record.kind = WRITE;
        record.len = (uint64_t)result;
        record.offset = at_given ? it->args[3] : position_of_fd(tid, fd) - record.len;
        char *bytes = bytes_of_write(tid, it->args[1], parts ? it->args[2] : 0, record.len);
        emit(record, path, "", bytes);
        free(bytes);
        return;
    }
    record.kind = is_sync(it->nr) ? SYNC : it->nr == SYS_ftruncate ? TRUNCATE : ODD;
    record.offset = record.kind == TRUNCATE ? it->args[1] : 0;
    emit(record, path, "", "");
}

static void note_path_call(pid_t tid, enum kind kind, int dir, uint64_t text, int dir2, uint64_t text2) {
    char path[PATH_MAX], path2[PATH_MAX] = "";
    if (path_argument(tid, dir, text, path) != 0) return;
    if (text2 != 0 && path_argument(tid, dir2, text2, path2) != 0) return;
    if (is_below_root(path) || is_below_root(path2)) emit((struct record){.kind = kind}, path, path2, "");
}

static void note_open(pid_t tid, int64_t result, uint64_t flags) {
    char path[PATH_MAX];
    if ((flags & (O_CREAT | O_TRUNC)) == 0 || (flags & O_DIRECTORY) != 0) return;
    if (path_of_fd(tid, (int)result, path) != 0 || !is_below_root(path)) return;
    struct record record = {.kind = CREATE, .inode = inode_of_fd(tid, (int)result)};
    record.truncates = (flags & O_TRUNC) != 0;
    emit(record, path, "", "");
}

/* A call has ended well. */
static void ends(pid_t tid, const struct thread *it, int64_t result) {
    const uint64_t *args = it->args;
    if (is_by_fd(it->nr)) return note_fd_call(tid, it, result);
    switch (it->nr) {
    case SYS_openat: return note_open(tid, result, args[2]);
    case SYS_renameat: return note_path_call(tid, RENAME, (int)args[0], args[1], (int)args[2], args[3]);
    case SYS_renameat2:
        return note_path_call(tid, args[4] == 0 || args[4] == 1 ? RENAME : ODD, (int)args[0], args[1], (int)args[2],
                              args[3]);
    case SYS_mkdirat: return note_path_call(tid, MKDIR, (int)args[0], args[1], 0, 0);
    case SYS_unlinkat:
        return note_path_call(tid, (args[2] & AT_REMOVEDIR) != 0 ? RMDIR : UNLINK, (int)args[0], args[1], 0, 0);
    case SYS_linkat: return note_path_call(tid, LINK, (int)args[0], args[1], (int)args[2], args[3]);
#ifdef SYS_open
    case SYS_open: return note_open(tid, result, args[1]);
    case SYS_creat: return note_open(tid, result, O_CREAT | O_TRUNC);
    case SYS_rename: return note_path_call(tid, RENAME, AT_FDCWD, args[0], AT_FDCWD, args[1]);
    case SYS_mkdir: return note_path_call(tid, MKDIR, AT_FDCWD, args[0], 0, 0);
    case SYS_unlink: return note_path_call(tid, UNLINK, AT_FDCWD, args[0], 0, 0);
    case SYS_rmdir: return note_path_call(tid, RMDIR, AT_FDCWD, args[0], 0, 0);
    case SYS_link: return note_path_call(tid, LINK, AT_FDCWD, args[0], AT_FDCWD, args[1]);
    case SYS_truncate: return note_path_call(tid, ODD, AT_FDCWD, args[0], 0, 0);
#endif
    default: return;
    }
}

/* Stops the command at the calls above and at no other. */
static void filter_calls(void) {
    static const unsigned calls[] = {
        SYS_write,  SYS_pwrite64,  SYS_writev,   SYS_pwritev, SYS_fsync,   SYS_fdatasync, SYS_ftruncate, SYS_fallocate,
        SYS_copy_file_range, SYS_openat, SYS_renameat, SYS_renameat2, SYS_mkdirat, SYS_unlinkat, SYS_linkat,
#ifdef SYS_open
        SYS_open,   SYS_creat,     SYS_rename,   SYS_mkdir,   SYS_unlink,  SYS_rmdir,     SYS_link,      SYS_truncate,
#endif
    };
    enum { COUNT = sizeof calls / sizeof calls[0] };
    struct sock_filter filter[COUNT + 3];
    size_t at = 0;
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < COUNT; i++)
        filter[at++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], (uint8_t)(COUNT - i), 0);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[at++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    struct sock_fprog program = {(unsigned short)at, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) fail("no_new_privs");
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) fail("seccomp");
}

static void pass_on(int signal_number) { kill(child, signal_number); }

/* SIGSTOP wakes the tracer, which lets nobody go on from here. */
static void want_kill(int signal_number) {
    (void)signal_number;
    kill_wanted = 1;
    kill(child, SIGSTOP);
}

static void kill_once_calls_have_ended(void) {
    for (int i = 0; i < THREADS_MAX; i++)
        if (threads[i].tid != 0 && threads[i].in_call) return;
    die();
}

static void start(char **command) {
    child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0) fail("ptrace");
        raise(SIGSTOP);
        filter_calls();
        execvp(command[0], command);
        fail(command[0]);
    }
    int status;
    if (waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status)) fail("the command does not start");
    long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                   PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SETOPTIONS, child, 0, options) != 0) fail("ptrace options");
    int is_new;
    thread_of(child, &is_new);
    signal(SIGTERM, pass_on);
    signal(SIGUSR1, want_kill);
    ptrace(PTRACE_CONT, child, 0, 0);
}

/* Serves one stop of a thread. */
static void stopped(pid_t tid, int status) {
    int is_new, event = status >> 16, number = WSTOPSIG(status);
    struct thread *it = thread_of(tid, &is_new);
    struct __ptrace_syscall_info info = {0};
    if (number == (SIGTRAP | 0x80)) {
        if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) <= 0) return;
        if (info.op == PTRACE_SYSCALL_INFO_EXIT && !info.exit.is_error) ends(tid, it, info.exit.rval);
        it->in_call = 0;
        if (it->dies) die();
    }
    if (kill_wanted) return kill_once_calls_have_ended();
    if (event == PTRACE_EVENT_SECCOMP) {
        if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) <= 0) return;
        it->nr = info.seccomp.nr;
        memcpy(it->args, info.seccomp.args, sizeof it->args);
        it->in_call = begins(tid, it);
        ptrace(it->in_call ? PTRACE_SYSCALL : PTRACE_CONT, tid, 0, 0);
    } else if (number == (SIGTRAP | 0x80) || event != 0 || (is_new && number == SIGSTOP)) {
        ptrace(PTRACE_CONT, tid, 0, 0);
    } else {
        ptrace(PTRACE_CONT, tid, 0, number);
    }
}

static int follow(void) {
    for (;;) {
        int status, is_new;
        pid_t tid = waitpid(-1, &status, __WALL);
        if (tid < 0 && errno == EINTR) continue;
        if (tid < 0) fail("waitpid");
        if (WIFSTOPPED(status)) {
            stopped(tid, status);
            continue;
        }
        struct thread *gone = thread_of(tid, &is_new);
        memset(gone, 0, sizeof *gone);
        if (kill_wanted) kill_once_calls_have_ended();
        if (tid == child) return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    }
}

static const char *point_of(char *text, long *at) {
    char *colon = strchr(text, ':');
    if (colon == NULL || (*at = atol(colon + 1)) <= 0) {
        errno = EINVAL;
        fail(text);
    }
    *colon = 0;
    return text;
}

int main(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "+r:t:j:k:f:")) != -1) {
        switch (option) {
        case 'r':
            if (realpath(optarg, root) == NULL) fail(optarg);
            root_len = strlen(root);
            break;
        case 't':
            trace_fd = open(optarg, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
            if (trace_fd < 0) fail(optarg);
            break;
        case 'j': journals = optarg; break;
        case 'k': kill_point = point_of(optarg, &kill_at); break;
        case 'f': fault = point_of(optarg, &fault_at); break;
        default: return 125;
        }
    }
    if (root_len == 0 || optind >= argc) {
        fprintf(stderr, "usage: disktrace -r DIR [-t TRACE] [-j PART] [-k POINT:N] [-f FAULT:N] -- COMMAND...\n");
        return 125;
    }
    start(argv + optind);
    return follow();
}
