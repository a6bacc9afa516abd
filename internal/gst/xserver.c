// What Xlib and ximagesrc (GStreamer 1.22, libX11 1.8.4) do to a whole process, and
// how it is kept to the pipeline. The plugin's calls find the functions here
// first, because the program exports them; Xlib itself isn't linked to.
//
// An X server that goes away: Xlib's I/O error handler calls exit(3). Two things
// keep the process alive, and both are needed: an I/O error handler that returns,
// and an exit handler on each Display, set before the error. ximagesrc's Display
// is private, so XOpenDisplay does what Xlib's does, and sets both.
//
// An X error, as when the screen's size changes between two requests: Xlib's
// handler calls exit(3) too. Ours lets the request fail.
//
// Two desktops in one process: ximagesrc grabs the X server for each frame and
// takes Xlib's global lock while it holds it; XOpenDisplay holds that lock while it
// waits for the server. Both then wait for ever, and so does every other client of
// that server. So the server isn't grabbed: what the grab would prevent is the
// X error above.
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

static int on_error(Display *display, void *event) {
  (void)display;
  (void)event;
  return 0;
}

int XGrabServer(Display *display) {
  (void)display;
  return 1;
}

int XUngrabServer(Display *display) {
  (void)display;
  return 1;
}

Display *XOpenDisplay(const char *name) {
  void *xlib = dlopen("libX11.so.6", RTLD_NOW | RTLD_NOLOAD);
  if (!xlib) return NULL;
  Display *(*open_display)(const char *) = (Display * (*)(const char *)) dlsym(xlib, "XOpenDisplay");
  void *(*set_protocol)(int (*)(Display *, void *)) =
      (void *(*)(int (*)(Display *, void *)))dlsym(xlib, "XSetErrorHandler");
  void *(*set_error)(int (*)(Display *)) = (void *(*)(int (*)(Display *)))dlsym(xlib, "XSetIOErrorHandler");
  void (*set_exit)(Display *, void (*)(Display *, void *), void *) =
      (void (*)(Display *, void (*)(Display *, void *), void *))dlsym(xlib, "XSetIOErrorExitHandler");
  Display *display = open_display ? open_display(name) : NULL;
  void *unlock = dlsym(xlib, "XUnlockDisplay");
  if (display && set_protocol && set_error && set_exit && unlock) {
    set_protocol(on_error);
    set_error(on_io_error);
    set_exit(display, on_exit_wanted, unlock);
  }
  dlclose(xlib);
  return display;
}
