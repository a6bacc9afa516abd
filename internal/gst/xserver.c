// Xlib ends the whole process when its X server goes away: its I/O error handler
// calls exit(3). A desktop that dies must end its pipeline only. Two things keep
// the process alive, and both are needed (libX11 ≥ 1.7, Xlib's _XIOError): an
// I/O error handler that returns, and an exit handler on each Display, set before
// the error. ximagesrc's Display is private, so XOpenDisplay is found here first,
// does what Xlib's does, and sets both. Xlib isn't linked to: without ximagesrc
// it isn't even loaded.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>

typedef struct _XDisplay Display;

static atomic_int lost;

// x_servers_lost counts the X servers that went away under an open connection.
int x_servers_lost(void) { return atomic_load(&lost); }

static int on_io_error(Display *display) {
  (void)display;
  return 0;
}

// on_exit_wanted runs where Xlib would exit, on the thread that met the error. Xlib
// still holds the display's user lock then and would never give it back: the
// plugin's XShmDetach, on stopping, would wait for it for ever (libX11 1.8.4).
static void on_exit_wanted(Display *display, void *unlock) {
  ((void (*)(Display *))unlock)(display);
  atomic_fetch_add(&lost, 1);
}

Display *XOpenDisplay(const char *name) {
  void *xlib = dlopen("libX11.so.6", RTLD_NOW | RTLD_NOLOAD);
  if (!xlib) return NULL;
  Display *(*open_display)(const char *) = (Display * (*)(const char *)) dlsym(xlib, "XOpenDisplay");
  void *(*set_error)(int (*)(Display *)) = (void *(*)(int (*)(Display *)))dlsym(xlib, "XSetIOErrorHandler");
  void (*set_exit)(Display *, void (*)(Display *, void *), void *) =
      (void (*)(Display *, void (*)(Display *, void *), void *))dlsym(xlib, "XSetIOErrorExitHandler");
  Display *display = open_display ? open_display(name) : NULL;
  void *unlock = dlsym(xlib, "XUnlockDisplay");
  if (display && set_error && set_exit && unlock) {
    set_error(on_io_error);
    set_exit(display, on_exit_wanted, unlock);
  }
  dlclose(xlib);
  return display;
}
