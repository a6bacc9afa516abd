// The hand-over of a capture's buffers to the pipelines that encode them: by
// reference, on the capture's streaming thread, without ever waiting. An encoder
// that is too slow loses buffers of its own queue and nobody else's:
//
//   pictures  two wait at most; the oldest makes room
//   sound     100 ms wait at most; the oldest makes room
//   coded     what can be decoded only in a row: when 2 s wait, all is left out up
//             to the first keyframe that comes when less than 1 s does
//
// Buffers travel with their running time as timestamp: the pipelines have the
// capture's clock and base time, and appsrc's segment begins at 0.
#include "handover.h"

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <stdatomic.h>

#define PICTURES_WAITING 2
#define SOUND_WAITING (100 * GST_MSECOND)
#define CODED_WAITING (2 * GST_SECOND)
#define CODED_RESUMING (1 * GST_SECOND)
#define CODED_BYTES (64 << 20)  // also where timestamps don't tell
#define GAPS 8                  // more than can be among what waits

// What is kept of a coded stream, for who comes between two keyframes.
#define RECENT_BUFFERS 1000
#define RECENT_BYTES (16 << 20)

typedef enum { PICTURES = 1, SOUND, CODED } kind;

struct outlet {
  GstAppSrc *appsrc;
  GstCaps *caps;       // that the appsrc was given last
  gboolean waiting;    // coded: for a keyframe
  gboolean begun;      // coded: a keyframe has been handed over
  gboolean catching;   // coded: it still works on what was kept for it
  atomic_ullong dropped;
  atomic_ullong gap[GAPS];  // running times of the first buffers after losses, in a ring
  atomic_uint gaps;         // how many there were
  guint told;               // how many of these outlet_lost has told of
};

struct handover {
  GMutex mu;           // guards below; held to hand over one buffer
  GPtrArray *outlets;
  GstCaps *caps;       // of the last buffer
  kind kind;           // what they describe
  GQueue recent;       // pictures: the last buffer; coded: all since the last keyframe
  gsize recent_bytes;
};

static void forget(handover *h) {
  g_queue_clear_full(&h->recent, (GDestroyNotify)gst_buffer_unref);
  h->recent_bytes = 0;
}

static kind kind_of(GstCaps *caps) {
  const char *name = gst_structure_get_name(gst_caps_get_structure(caps, 0));
  if (g_str_has_prefix(name, "audio/")) return SOUND;
  if (g_str_equal(name, "video/x-raw") || g_str_has_prefix(name, "image/")) return PICTURES;
  return CODED;
}

static void remember(handover *h, GstBuffer *b) {
  gboolean delta = GST_BUFFER_FLAG_IS_SET(b, GST_BUFFER_FLAG_DELTA_UNIT);
  if (h->kind == SOUND) return;
  if (h->kind == PICTURES || !delta)
    forget(h);
  else if (g_queue_is_empty(&h->recent))
    return;
  g_queue_push_tail(&h->recent, gst_buffer_ref(b));
  h->recent_bytes += gst_buffer_get_size(b);
  if (h->kind == CODED && (h->recent.length > RECENT_BUFFERS || h->recent_bytes > RECENT_BYTES)) forget(h);
}

// describe tells the appsrc what comes next, and how much of it may wait.
static void describe(handover *h, outlet *o) {
  gst_caps_replace(&o->caps, h->caps);
  gst_app_src_set_max_buffers(o->appsrc, h->kind == PICTURES ? PICTURES_WAITING : 0);
  gst_app_src_set_max_time(o->appsrc, h->kind == SOUND ? SOUND_WAITING : 0);
  gst_app_src_set_leaky_type(o->appsrc, h->kind == CODED ? GST_APP_LEAKY_TYPE_NONE : GST_APP_LEAKY_TYPE_DOWNSTREAM);
  gst_app_src_set_caps(o->appsrc, h->caps);
}

// decodable tells whether a coded buffer may go on: it follows the one before, or
// is a keyframe.
static gboolean decodable(outlet *o, GstBuffer *b) {
  GstClockTime most = o->begun && o->waiting ? CODED_RESUMING : CODED_WAITING;
  gboolean late = gst_app_src_get_current_level_time(o->appsrc) > most;
  o->catching = o->catching && late;
  gboolean full = (late && !o->catching) || gst_app_src_get_current_level_bytes(o->appsrc) > CODED_BYTES;
  if (full || (o->waiting && GST_BUFFER_FLAG_IS_SET(b, GST_BUFFER_FLAG_DELTA_UNIT))) {
    if (o->begun) o->dropped++;
    o->waiting = TRUE;
    return FALSE;
  }
  if (o->waiting && o->begun) {
    o->gap[o->gaps % GAPS] = GST_BUFFER_PTS(b);
    o->gaps++;
  }
  o->waiting = FALSE;
  o->begun = TRUE;
  return TRUE;
}

static void give(handover *h, outlet *o, GstBuffer *b) {
  if (o->caps != h->caps) describe(h, o);
  if (h->kind == CODED && !decodable(o, b)) return;
  if ((h->kind == PICTURES && gst_app_src_get_current_level_buffers(o->appsrc) >= PICTURES_WAITING) ||
      (h->kind == SOUND && gst_app_src_get_current_level_time(o->appsrc) >= SOUND_WAITING))
    o->dropped++;
  gst_app_src_push_buffer(o->appsrc, gst_buffer_ref(b));  // refused while the pipeline starts or stops
}

// stamped is the sample's buffer with its running time as timestamp; a copy, which
// shares the memory, where that differs. NULL: none.
static GstBuffer *stamped(GstSample *sample) {
  GstBuffer *b = gst_sample_get_buffer(sample);
  GstSegment *segment = gst_sample_get_segment(sample);
  if (!b) return NULL;
  gst_buffer_ref(b);
  if (!segment || segment->format != GST_FORMAT_TIME) return b;
  GstClockTime pts = gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(b));
  GstClockTime dts = gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_DTS(b));
  if (pts == GST_BUFFER_PTS(b) && dts == GST_BUFFER_DTS(b)) return b;
  GstBuffer *copy = gst_buffer_copy(b);
  gst_buffer_add_parent_buffer_meta(copy, b);  // so that the memory isn't given back to its pool before
  gst_buffer_unref(b);
  GST_BUFFER_PTS(copy) = pts;
  GST_BUFFER_DTS(copy) = dts;  // none where it lies before the segment
  return copy;
}

static GstFlowReturn on_sample(GstAppSink *appsink, gpointer user) {
  handover *h = user;
  GstSample *sample = gst_app_sink_try_pull_sample(appsink, 0);
  if (!sample) return GST_FLOW_OK;
  GstCaps *caps = gst_sample_get_caps(sample);
  GstBuffer *b = caps ? stamped(sample) : NULL;
  if (b) {
    g_mutex_lock(&h->mu);
    if (caps != h->caps) {
      if (!h->caps || !gst_caps_is_equal(caps, h->caps)) forget(h);
      gst_caps_replace(&h->caps, caps);
      h->kind = kind_of(caps);
    }
    remember(h, b);
    for (guint i = 0; i < h->outlets->len; i++) give(h, g_ptr_array_index(h->outlets, i), b);
    g_mutex_unlock(&h->mu);
    gst_buffer_unref(b);
  }
  gst_sample_unref(sample);
  return GST_FLOW_OK;
}

static void handover_free(gpointer user) {
  handover *h = user;
  forget(h);
  gst_caps_replace(&h->caps, NULL);
  g_ptr_array_free(h->outlets, TRUE);
  g_mutex_clear(&h->mu);
  g_free(h);
}

// handover_new takes what the appsink yields. It lives as long as the appsink.
handover *handover_new(GstElement *appsink) {
  handover *h = g_new0(handover, 1);
  g_mutex_init(&h->mu);
  g_queue_init(&h->recent);
  h->outlets = g_ptr_array_new();
  GstAppSinkCallbacks callbacks = {.new_sample = on_sample};
  gst_app_sink_set_callbacks(GST_APP_SINK(appsink), &callbacks, h, handover_free);
  return h;
}

// handover_attach hands to the appsrc of a started pipeline all that comes from now
// on, and before it what a decoder or encoder can begin with at once.
outlet *handover_attach(handover *h, GstElement *appsrc) {
  outlet *o = g_new0(outlet, 1);
  o->appsrc = gst_object_ref(GST_APP_SRC(appsrc));
  g_mutex_lock(&h->mu);
  o->waiting = g_queue_is_empty(&h->recent);
  o->begun = o->catching = !o->waiting;
  if (h->caps) describe(h, o);
  for (GList *l = h->recent.head; l; l = l->next) gst_app_src_push_buffer(o->appsrc, gst_buffer_ref(l->data));
  g_ptr_array_add(h->outlets, o);
  g_mutex_unlock(&h->mu);
  return o;
}

// handover_detach ends it: nothing is handed over any more when it returns.
void handover_detach(handover *h, outlet *o) {
  g_mutex_lock(&h->mu);
  g_ptr_array_remove(h->outlets, o);
  g_mutex_unlock(&h->mu);
}

// outlet_dropped is how many buffers its pipeline was too slow for.
guint64 outlet_dropped(outlet *o) { return o->dropped; }

// outlet_lost tells whether what came out of the pipeline, at that running time,
// follows a loss that wasn't told of before. One thread asks, in the order of time.
gboolean outlet_lost(outlet *o, GstClockTime running) {
  gboolean lost = FALSE;
  guint gaps = o->gaps;
  if (gaps - o->told > GAPS) o->told = gaps - GAPS;
  while (o->told != gaps && running >= o->gap[o->told % GAPS]) {
    o->told++;
    lost = TRUE;
  }
  return lost;
}

void outlet_free(outlet *o) {
  if (!o) return;
  gst_object_unref(o->appsrc);
  gst_caps_replace(&o->caps, NULL);
  g_free(o);
}
