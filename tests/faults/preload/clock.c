/* A wall clock that a test can set: LD_PRELOAD this, and name a file of three int64 (nanoseconds) in FAULTS_CLOCK.

The first is added to the wall clock of the controller and its helpers, the second to that of main, the third to that of
the other workers; each whenever it is read, so that changing the file is a step of the clock. CLOCK_MONOTONIC is left
as it is, and so is the clock of the machine. Who waits until a time of day is woken as if the kernel's clock had been
set as well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset_ns;

__attribute__((constructor)) static void find_offset(void) {
  const char *path = getenv("FAULTS_CLOCK");
  if (path == NULL) return;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  void *shared = mmap(NULL, 3 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) return;
  char command[8192] = "";
  int own = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  ssize_t length = own < 0 ? 0 : read(own, command, sizeof command - 1);
  if (own >= 0) close(own);
  for (ssize_t at = 0; at < length; at++)
    if (command[at] == '\0') command[at] = ' ';
  int which = 0;
  if (strstr(command, "null_worker") != NULL) which = strstr(command, "/0-main-") != NULL ? 1 : 2;
  offset_ns = (const volatile int64_t *)shared + which;
}

static int read_clock(clockid_t id, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, id, now);
  if (result == 0 && offset_ns != NULL && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
    int64_t total_ns = now->tv_nsec + *offset_ns;
    int64_t seconds = total_ns / 1000000000, rest_ns = total_ns % 1000000000;
    if (rest_ns < 0) {
      rest_ns += 1000000000;
      seconds--;
    }
    now->tv_sec += seconds;
    now->tv_nsec = rest_ns;
  }
  return result;
}

int clock_gettime(clockid_t id, struct timespec *now) { return read_clock(id, now); }

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  int result = read_clock(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return result;
}

time_t time(time_t *now) {
  struct timespec precise;
  read_clock(CLOCK_REALTIME, &precise);
  if (now != NULL) *now = precise.tv_sec;
  return precise.tv_sec;
}

/* Deadlines below this many seconds are of CLOCK_MONOTONIC: some conditions are told so by their attributes. */
#define EARLIEST_TIME_OF_DAY 1000000000

static struct timespec by_the_kernel(const struct timespec *deadline) {
  struct timespec real = *deadline;
  if (offset_ns == NULL || real.tv_sec < EARLIEST_TIME_OF_DAY) return real;
  real.tv_sec -= *offset_ns / 1000000000;
  return real;
}

int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict deadline) {
  static int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  if (wait == NULL) wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
  if (wait == NULL) wait = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
  struct timespec real = by_the_kernel(deadline);
  return wait(condition, mutex, &real);
}

int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict deadline) {
  static int (*wait)(sem_t *, const struct timespec *);
  if (wait == NULL) wait = dlsym(RTLD_NEXT, "sem_timedwait");
  struct timespec real = by_the_kernel(deadline);
  return wait(semaphore, &real);
}
