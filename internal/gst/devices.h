// What device providers of GStreamer found.
#pragma once

#include "native.h"

// found_device is one device. The strings are its own, and may be NULL.
typedef struct {
  char *name;        // for people
  char *class;       // such as "Audio/Source"
  char *factory;     // of the element that opens it
  char *launch;      // that element as launch text, with the properties that name the device
  char *node;        // its name at the sound server: stays the same
  char *api;         // below the provider: "v4l2", "alsa"
  source_format *formats;
  int n_formats;
  gboolean monitor;  // it is what a sink plays
  gboolean standard; // the server's default
} found_device;

int devices_of(const char *provider, found_device **out);
void devices_free(found_device *devices, int n);

typedef struct device_watch device_watch;

device_watch *device_watch_new(void);
gboolean device_watch_add(device_watch *w, const char *provider);
char *device_watch_list(device_watch *w, guint64 *news);
gboolean device_watch_wait(device_watch *w, guint64 news, gint64 microseconds);
void device_watch_free(device_watch *w);
