// A GStreamer plugin that crashes the process it is in: gatewaycrash with the first
// buffer that passes, and libcamerasrc, which no machine of these tests has, when its
// device would be opened.
#include <gst/base/gstbasetransform.h>
#include <gst/base/gstpushsrc.h>

#define PACKAGE "gateway-tests"

static GstFlowReturn crash(void) {
  *(volatile int *)0 = 0;
  return GST_FLOW_ERROR;
}

static GstStaticPadTemplate any_sink = GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate any_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate raw_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw"));

typedef GstBaseTransform Crash;
typedef GstBaseTransformClass CrashClass;
G_DEFINE_TYPE(Crash, crash, GST_TYPE_BASE_TRANSFORM)

static GstFlowReturn crash_transform(GstBaseTransform *t, GstBuffer *b) { return crash(); }
static void crash_init(Crash *c) {}
static void crash_class_init(CrashClass *c) {
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(c), &any_sink);
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(c), &any_src);
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(c), "crash", "Filter", "crashes", "tests");
  GST_BASE_TRANSFORM_CLASS(c)->transform_ip = crash_transform;
}

typedef GstPushSrc Device;
typedef GstPushSrcClass DeviceClass;
G_DEFINE_TYPE(Device, device, GST_TYPE_PUSH_SRC)

static GstStateChangeReturn device_change(GstElement *e, GstStateChange change) {
  if (change == GST_STATE_CHANGE_NULL_TO_READY) crash();
  return GST_ELEMENT_CLASS(device_parent_class)->change_state(e, change);
}
static void device_init(Device *d) {}
static void device_class_init(DeviceClass *c) {
  gst_element_class_add_static_pad_template(GST_ELEMENT_CLASS(c), &raw_src);
  gst_element_class_set_static_metadata(GST_ELEMENT_CLASS(c), "crash", "Source/Video", "crashes", "tests");
  GST_ELEMENT_CLASS(c)->change_state = device_change;
}

static gboolean plugin_init(GstPlugin *p) {
  return gst_element_register(p, "gatewaycrash", GST_RANK_NONE, crash_get_type()) &&
         gst_element_register(p, "libcamerasrc", GST_RANK_NONE, device_get_type());
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, gatewaycrash, "crashes", plugin_init, "1", "LGPL", PACKAGE, "none")
