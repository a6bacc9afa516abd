// Which devices GStreamer's providers have, followed as they come and go. A provider
// tells of it on its bus, from threads of its own: the watch's condition wakes who
// waits.
#include "devices.h"

struct device_watch {
  GMutex lock;
  GCond cond;
  guint64 news; // guarded by lock
  GList *providers;
};

static GstBusSyncReply on_message(GstBus *bus, GstMessage *message, gpointer user) {
  (void)bus;
  device_watch *w = user;
  switch (GST_MESSAGE_TYPE(message)) {
  case GST_MESSAGE_DEVICE_ADDED:
  case GST_MESSAGE_DEVICE_REMOVED:
  case GST_MESSAGE_DEVICE_CHANGED:
    g_mutex_lock(&w->lock);
    w->news++;
    g_cond_signal(&w->cond);
    g_mutex_unlock(&w->lock);
  default:
    break;
  }
  gst_message_unref(message);
  return GST_BUS_DROP;
}

device_watch *device_watch_new(void) {
  device_watch *w = g_new0(device_watch, 1);
  g_mutex_init(&w->lock);
  g_cond_init(&w->cond);
  return w;
}

// device_watch_add starts a provider, unless there is none of that name or it
// doesn't start: a sound server that doesn't run.
gboolean device_watch_add(device_watch *w, const char *provider) {
  GstDeviceProvider *p = gst_device_provider_factory_get_by_name(provider);
  if (!p) return FALSE;
  GstBus *bus = gst_device_provider_get_bus(p);
  gst_bus_set_sync_handler(bus, on_message, w, NULL);
  gboolean runs = gst_device_provider_can_monitor(p) && gst_device_provider_start(p);
  if (runs) {
    w->providers = g_list_prepend(w->providers, p);
  } else {
    gst_bus_set_sync_handler(bus, NULL, NULL, NULL);
    gst_object_unref(p);
  }
  gst_object_unref(bus);
  return runs;
}

// device_watch_list names all devices that there are: class and name, a line each,
// in no order. news is what device_watch_wait is to be given.
char *device_watch_list(device_watch *w, guint64 *news) {
  g_mutex_lock(&w->lock);
  *news = w->news;
  g_mutex_unlock(&w->lock);
  GString *s = g_string_new(NULL);
  for (GList *l = w->providers; l; l = l->next) {
    GList *devices = gst_device_provider_get_devices(l->data);
    for (GList *d = devices; d; d = d->next) {
      char *name = gst_device_get_display_name(d->data), *class = gst_device_get_device_class(d->data);
      g_string_append_printf(s, "%s %s\n", class, name);
      g_free(name);
      g_free(class);
    }
    g_list_free_full(devices, gst_object_unref);
  }
  return g_string_free(s, FALSE);
}

// device_watch_wait waits until there are other news, for that long at most.
gboolean device_watch_wait(device_watch *w, guint64 news, gint64 microseconds) {
  gint64 end = g_get_monotonic_time() + microseconds;
  g_mutex_lock(&w->lock);
  gboolean more = TRUE;
  while (w->news == news && more) more = g_cond_wait_until(&w->cond, &w->lock, end);
  more = w->news != news;
  g_mutex_unlock(&w->lock);
  return more;
}

void device_watch_free(device_watch *w) {
  for (GList *l = w->providers; l; l = l->next) {
    gst_device_provider_stop(l->data);
    GstBus *bus = gst_device_provider_get_bus(l->data);
    gst_bus_set_sync_handler(bus, NULL, NULL, NULL);
    gst_object_unref(bus);
  }
  g_list_free_full(w->providers, gst_object_unref);
  g_cond_clear(&w->cond);
  g_mutex_clear(&w->lock);
  g_free(w);
}
