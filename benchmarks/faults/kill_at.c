/* Counts the operations of a process and its children on the files below a folder, and kills it at the n-th.

   Preloaded by kills.py, which starts a process group. An operation is what changes names or contents: opening a file
   to create or empty it, writing, renaming, removing, making a folder, syncing. The group is ended by SIGKILL before the operation; a write has been
   done by half then, as it may be by any interruption.

     KILL_BELOW   the folder; operations elsewhere are not counted
     KILL_AT      which operation, from 1; 0 for none
     KILL_COUNT   a file that holds the number of operations so far, 8 bytes, shared by all processes
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *below;
static size_t below_length;
static long kill_at;
static long *count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void) {
    const char *file = getenv("KILL_COUNT"), *at = getenv("KILL_AT");
    below = getenv("KILL_BELOW");
    if (!below || !file || !at) return;
    below_length = strlen(below);
    kill_at = atol(at);
    int descriptor = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return;
    void *shared = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (shared != MAP_FAILED) count = shared;
    syscall(SYS_close, descriptor);
}

static int is_below(int folder, const char *path) {
    char whole[PATH_MAX];
    if (!count || !path) return 0;
    if (path[0] == '/') {
        snprintf(whole, sizeof whole, "%s", path);
    } else if (folder == AT_FDCWD) {
        if (!getcwd(whole, sizeof whole)) return 0;
    } else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, whole, sizeof whole - 1);
        if (length < 0) return 0;
        whole[length] = 0;
    }
    return strncmp(whole, below, below_length) == 0;
}

/* Whether this very operation is the one to die at. */
static int is_the_one(void) {
    return __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST) == kill_at;
}

static void die(void) {
    syscall(SYS_kill, 0, SIGKILL);
    for (;;) pause();
}

static void passed(int folder, const char *path) {
    if (is_below(folder, path) && is_the_one()) die();
}

static int changes(int flags) { return (flags & (O_CREAT | O_TRUNC)) != 0; }

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = va_arg(rest, mode_t);                            \
        va_end(rest);                                                  \
        if (changes(flags)) passed(AT_FDCWD, path);                    \
        return REAL(name)(path, flags, mode);                          \
    }
#define OPENAT(name)                                                   \
    int name(int folder, const char *path, int flags, ...) {           \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = va_arg(rest, mode_t);                            \
        va_end(rest);                                                  \
        if (changes(flags)) passed(folder, path);                      \
        return REAL(name)(folder, path, flags, mode);                  \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

FILE *fopen(const char *path, const char *mode) {
    if (strpbrk(mode, "wa+")) passed(AT_FDCWD, path);
    return REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
    if (strpbrk(mode, "wa+")) passed(AT_FDCWD, path);
    return REAL(fopen64)(path, mode);
}

/* Writes half, then dies. */
ssize_t write(int descriptor, const void *content, size_t size) {
    if (is_below(descriptor, "") && is_the_one()) {
        syscall(SYS_write, descriptor, content, size / 2);
        die();
    }
    return REAL(write)(descriptor, content, size);
}
#define PWRITE(name, offset_type)                                                        \
    ssize_t name(int descriptor, const void *content, size_t size, offset_type offset) { \
        if (is_below(descriptor, "") && is_the_one()) {                                  \
            syscall(SYS_pwrite64, descriptor, content, size / 2, offset);                \
            die();                                                                       \
        }                                                                                \
        return REAL(name)(descriptor, content, size, offset);                            \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    if (is_below(descriptor, "") && is_the_one()) {
        syscall(SYS_writev, descriptor, parts, number / 2);
        die();
    }
    return REAL(writev)(descriptor, parts, number);
}

int fsync(int descriptor) {
    passed(descriptor, "");
    return REAL(fsync)(descriptor);
}
int fdatasync(int descriptor) {
    passed(descriptor, "");
    return REAL(fdatasync)(descriptor);
}
int ftruncate(int descriptor, off_t size) {
    passed(descriptor, "");
    return REAL(ftruncate)(descriptor, size);
}
int rename(const char *from, const char *to) {
    passed(AT_FDCWD, to);
    return REAL(rename)(from, to);
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    passed(to_folder, to);
    return REAL(renameat)(from_folder, from, to_folder, to);
}
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    passed(to_folder, to);
    return REAL(renameat2)(from_folder, from, to_folder, to, flags);
}
int unlink(const char *path) {
    passed(AT_FDCWD, path);
    return REAL(unlink)(path);
}
int unlinkat(int folder, const char *path, int flags) {
    passed(folder, path);
    return REAL(unlinkat)(folder, path, flags);
}
int rmdir(const char *path) {
    passed(AT_FDCWD, path);
    return REAL(rmdir)(path);
}
int mkdir(const char *path, mode_t mode) {
    passed(AT_FDCWD, path);
    return REAL(mkdir)(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    passed(folder, path);
    return REAL(mkdirat)(folder, path, mode);
}
int link(const char *from, const char *to) {
    passed(AT_FDCWD, to);
    return REAL(link)(from, to);
}
