// The moments at which pictures go into an encoder and come out of it: probes on
// its pads write them into a small ring, by the picture's running time, which the
// encoder keeps. They neither wait nor allocate. Input and output may be different
// threads, and the reader is a third one: each field has one writer, and a reader
// makes sure that the entry is still the picture's when it has read it.
#include "stamps.h"

#include <stdatomic.h>
#include <time.h>

#define PICTURES 64  // more than any encoder holds back

typedef struct {
  atomic_ullong running;  // of the picture; GST_CLOCK_TIME_NONE while it is being written
  atomic_ullong in, out;  // CLOCK_MONOTONIC in nanoseconds; out 0: not yet
} stamp;

struct stamps {
  stamp ring[PICTURES];
  guint next;  // the input's
};

static guint64 now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (guint64)t.tv_sec * GST_SECOND + t.tv_nsec;
}

// running_time is that of the first buffer that a probe is shown.
static GstClockTime running_time(GstPad *pad, GstPadProbeInfo *info) {
  GstBuffer *b = NULL;
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER_LIST) {
    GstBufferList *list = GST_PAD_PROBE_INFO_BUFFER_LIST(info);
    if (gst_buffer_list_length(list) > 0) b = gst_buffer_list_get(list, 0);
  } else {
    b = GST_PAD_PROBE_INFO_BUFFER(info);
  }
  GstEvent *event = b ? gst_pad_get_sticky_event(pad, GST_EVENT_SEGMENT, 0) : NULL;
  if (!event) return GST_CLOCK_TIME_NONE;
  const GstSegment *segment;
  gst_event_parse_segment(event, &segment);
  GstClockTime running = gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(b));
  gst_event_unref(event);
  return running;
}

static GstPadProbeReturn on_input(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  stamps *s = user;
  GstClockTime running = running_time(pad, info);
  if (running == GST_CLOCK_TIME_NONE) return GST_PAD_PROBE_OK;
  stamp *p = &s->ring[s->next++ % PICTURES];
  p->running = GST_CLOCK_TIME_NONE;
  p->in = now();
  p->out = 0;
  p->running = running;
  return GST_PAD_PROBE_OK;
}

static stamp *find(stamps *s, GstClockTime running) {
  for (guint i = 0; i < PICTURES; i++)
    if (s->ring[i].running == running) return &s->ring[i];
  return NULL;
}

static GstPadProbeReturn on_output(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  GstClockTime running = running_time(pad, info);
  stamp *p = running == GST_CLOCK_TIME_NONE ? NULL : find(user, running);
  if (p) p->out = now();  // again for each part of the picture: the last one counts
  return GST_PAD_PROBE_OK;
}

static gboolean probe(GstElement *encoder, const char *name, GstPadProbeCallback callback, stamps *s) {
  GstPad *pad = gst_element_get_static_pad(encoder, name);
  if (!pad) return FALSE;
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_BUFFER_LIST, callback, g_atomic_rc_box_acquire(s),
                    g_atomic_rc_box_release);
  gst_object_unref(pad);
  return TRUE;
}

// video_encoder walks up from an appsink to the encoder, which the caller unrefs. NULL:
// there is none.
GstElement *video_encoder(GstElement *appsink) {
  GstElement *e = gst_object_ref(appsink);
  for (int i = 0; e && i < 64; i++) {
    GstElementFactory *f = gst_element_get_factory(e);
    if (f && gst_element_factory_list_is_type(f, GST_ELEMENT_FACTORY_TYPE_VIDEO_ENCODER)) return e;
    GstPad *pad = gst_element_get_static_pad(e, "sink");
    GstPad *peer = pad ? gst_pad_get_peer(pad) : NULL;
    g_clear_object(&pad);
    gst_object_unref(e);
    e = peer ? gst_pad_get_parent_element(peer) : NULL;
    g_clear_object(&peer);
  }
  g_clear_object(&e);
  return NULL;
}

// stamps_new begins to watch the video encoder that feeds an appsink. NULL: there is
// none. An audio encoder cuts sound into other pieces than it is given.
stamps *stamps_new(GstElement *appsink) {
  GstElement *encoder = video_encoder(appsink);
  if (!encoder) return NULL;
  stamps *s = g_atomic_rc_box_new0(stamps);
  for (guint i = 0; i < PICTURES; i++) s->ring[i].running = GST_CLOCK_TIME_NONE;
  if (!probe(encoder, "sink", on_input, s) || !probe(encoder, "src", on_output, s)) g_clear_pointer(&s, g_atomic_rc_box_release);
  gst_object_unref(encoder);
  return s;
}

// stamps_find tells of the picture of a running time. FALSE: it isn't known, or not
// out yet.
gboolean stamps_find(stamps *s, GstClockTime running, guint64 *in, guint64 *out) {
  stamp *p = find(s, running);
  if (!p) return FALSE;
  *in = p->in;
  *out = p->out;
  return *out != 0 && p->running == running;
}

// stamps_free ends the reader's use of it; the encoder's pads may still write.
void stamps_free(stamps *s) { g_atomic_rc_box_release(s); }
