// What is told of a crash. Go tells the stack of its own threads only: a plugin's
// thread that faults ends the process without a word. The handler here writes one
// line and the stack of C functions to standard error, and leaves the rest to Go's
// handler, or to the kernel.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include "native.h"

#define FRAMES 64

static const struct {
  int number;
  const char *name;
} signals[] = {{SIGSEGV, "SIGSEGV"}, {SIGBUS, "SIGBUS"}, {SIGFPE, "SIGFPE"}, {SIGILL, "SIGILL"}, {SIGTRAP, "SIGTRAP"}, {SIGABRT, "SIGABRT"}, {SIGXCPU, "SIGXCPU"}};

static struct sigaction before[G_N_ELEMENTS(signals)];

static void say(const char *text) {
  if (text && write(STDERR_FILENO, text, strlen(text)) < 0)
    return; // nobody listens
}

// fault_at is the address of the instruction that faulted; NULL where it isn't known.
static void *fault_at(const ucontext_t *context) {
#if defined(__x86_64__)
  return (void *)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
  return (void *)context->uc_mcontext.pc;
#elif defined(__arm__)
  return (void *)(uintptr_t)context->uc_mcontext.arm_pc;
#else
  return NULL;
#endif
}

// say_place names the library and, if it tells, the function of the first frame that
// isn't the C library's, from the one that faulted on.
static void say_place(void *const *frames, int n, const void *fault) {
  int i = 0;
  while (i < n && frames[i] != fault)
    i++;
  if (i == n)
    return;
  for (; i < n; i++) {
    Dl_info info;
    if (!dladdr(frames[i], &info) || !info.dli_fname)
      continue;
    const char *base = strrchr(info.dli_fname, '/');
    base = base ? base + 1 : info.dli_fname;
    if (strncmp(base, "libc.", 5) == 0 || strncmp(base, "libc-", 5) == 0 || strncmp(base, "ld-", 3) == 0)
      continue;
    say(" in ");
    say(base);
    if (info.dli_sname) {
      say(" (");
      say(info.dli_sname);
      say(")");
    }
    return;
  }
}

static void on_crash(int number, siginfo_t *info, void *context) {
  // Where the stack is damaged or a lock held, what follows may hang or fault itself:
  // the process ends all the same.
  signal(SIGALRM, SIG_DFL);
  alarm(2);
  unsigned i = 0;
  while (i < G_N_ELEMENTS(signals) - 1 && signals[i].number != number)
    i++;
  sigaction(number, &before[i], NULL);

  void *frames[FRAMES];
  char thread[17] = "";
  int n = backtrace(frames, FRAMES);
  prctl(PR_GET_NAME, thread);
  say(signals[i].name);
  say_place(frames, n, fault_at(context));
  say(", thread ");
  say(thread);
  say("\n");
  backtrace_symbols_fd(frames, n, STDERR_FILENO);
  alarm(0);

  if (number == SIGXCPU) // Go's handler does nothing
    signal(number, SIG_DFL);
  // an instruction that faults is run again, now with the handler of before; what was sent is sent again
  if (info->si_code <= 0 || number == SIGXCPU)
    raise(number);
}

void tell_crashes(void) {
  void *frame;
  backtrace(&frame, 1); // loads what it needs, which a handler must not
  struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  for (unsigned i = 0; i < G_N_ELEMENTS(signals); i++)
    sigaction(signals[i].number, &action, &before[i]);
}
