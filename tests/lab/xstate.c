/*
 * Copyright (c) 2026 wharf.registry contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Lets User-mode Linux 6.1 run on processors with AMX. It hands the registers of its processes over with a buffer of fixed size, which is too
 * small there, and Linux takes the whole state or nothing. Loaded before libc (LD_PRELOAD), this ptrace() reads and writes the whole state, of
 * which User-mode Linux sees the part that it knows.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define LARGEST 65536

long ptrace(enum __ptrace_request request, ...)
{
    static long (*real)(enum __ptrace_request, pid_t, void *, void *);
    static char state[LARGEST] __attribute__((aligned(64)));
    static size_t size;
    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (!real)
        real = (long (*)(enum __ptrace_request, pid_t, void *, void *))dlsym(RTLD_NEXT, "ptrace");
    if ((request != PTRACE_GETREGSET && request != PTRACE_SETREGSET) || (long)address != NT_X86_XSTATE)
        return real(request, pid, address, data);

    struct iovec *theirs = data;
    struct iovec whole = {state, sizeof(state)};
    if (request == PTRACE_GETREGSET || !size) {
        long result = real(PTRACE_GETREGSET, pid, address, &whole);
        if (result < 0)
            return result;
        size = whole.iov_len;
    }
    size_t known = theirs->iov_len < size ? theirs->iov_len : size;
    if (request == PTRACE_GETREGSET) {
        memcpy(theirs->iov_base, state, known);
        theirs->iov_len = known;
        return 0;
    }
    /* The rest belongs to features that no process of the machine has asked the host for. */
    memset(state + known, 0, size - known);
    memcpy(state, theirs->iov_base, known);
    whole.iov_len = size;
    return real(PTRACE_SETREGSET, pid, address, &whole);
}
