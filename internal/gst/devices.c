#include "devices.h"

#include <string.h>

// launch_of writes an element as launch text: its factory and what differs from
// a new one, as gst-device-monitor-1.0 does.
static char *launch_of(GstElement *element, GstElementFactory *factory) {
  GstElement *fresh = gst_element_factory_create(factory, NULL);
  if (!fresh) return NULL;
  gst_object_ref_sink(fresh);
  GString *text = g_string_new(GST_OBJECT_NAME(factory));
  guint n = 0;
  GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(element), &n);
  for (guint i = 0; i < n; i++) {
    GParamSpec *spec = specs[i];
    if ((spec->flags & G_PARAM_READWRITE) != G_PARAM_READWRITE || (spec->flags & G_PARAM_CONSTRUCT_ONLY)) continue;
    if (!strcmp(spec->name, "name") || !strcmp(spec->name, "parent")) continue;
    GValue is = G_VALUE_INIT, was = G_VALUE_INIT;
    g_value_init(&is, spec->value_type);
    g_value_init(&was, spec->value_type);
    g_object_get_property(G_OBJECT(element), spec->name, &is);
    g_object_get_property(G_OBJECT(fresh), spec->name, &was);
    if (gst_value_compare(&is, &was) != GST_VALUE_EQUAL) {
      char *value = gst_value_serialize(&is);
      if (value) g_string_append_printf(text, " %s=%s", spec->name, value);
      g_free(value);
    }
    g_value_unset(&is);
    g_value_unset(&was);
  }
  g_free(specs);
  gst_object_unref(fresh);
  return g_string_free(text, FALSE);
}

static char *copied(const GstStructure *s, const char *key) { return s ? g_strdup(gst_structure_get_string(s, key)) : NULL; }

static void describe(GstDevice *device, found_device *out) {
  out->name = gst_device_get_display_name(device);
  out->class = gst_device_get_device_class(device);
  GstElement *element = gst_device_create_element(device, NULL);
  if (element) {
    gst_object_ref_sink(element);
    GstElementFactory *factory = gst_element_get_factory(element);
    if (factory) {
      out->factory = g_strdup(GST_OBJECT_NAME(factory));
      out->launch = launch_of(element, factory);
    }
    if (g_object_class_find_property(G_OBJECT_GET_CLASS(element), "device") &&
        g_object_class_find_property(G_OBJECT_GET_CLASS(element), "device")->value_type == G_TYPE_STRING)
      g_object_get(element, "device", &out->node, NULL);
    gst_object_unref(element);
  }
  GstStructure *about = gst_device_get_properties(device);
  char *node = copied(about, "node.name");
  if (node) {
    g_free(out->node);
    out->node = node;
  }
  out->api = copied(about, "device.api");
  char *class = copied(about, "device.class");
  out->monitor = class && !strcmp(class, "monitor");
  g_free(class);
  if (about) {
    gst_structure_get_boolean(about, "is-default", &out->standard);
    gst_structure_free(about);
  }
  GstCaps *caps = gst_device_get_caps(device);
  if (caps) {
    const int room = 256;
    out->formats = g_new0(source_format, room);
    out->n_formats = formats_of(caps, out->formats, room);
    gst_caps_unref(caps);
  }
}

// devices_of asks one provider what there is. It returns the number of devices,
// which the caller frees with devices_free, or -1 if there is no such provider.
int devices_of(const char *provider, found_device **out) {
  GstDeviceProvider *p = gst_device_provider_factory_get_by_name(provider);
  if (!p) return -1;
  GList *devices = gst_device_provider_get_devices(p);
  gst_object_unref(p);
  int n = 0;
  *out = g_new0(found_device, g_list_length(devices) + 1);
  for (GList *d = devices; d; d = d->next) describe(GST_DEVICE(d->data), &(*out)[n++]);
  g_list_free_full(devices, gst_object_unref);
  return n;
}

void devices_free(found_device *devices, int n) {
  for (int i = 0; i < n; i++) {
    found_device *d = &devices[i];
    char *owned[] = {d->name, d->class, d->factory, d->launch, d->node, d->api, (char *)d->formats};
    for (size_t j = 0; j < G_N_ELEMENTS(owned); j++) g_free(owned[j]);
  }
  g_free(devices);
}
