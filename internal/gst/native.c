#include "native.h"

#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

// few_arenas keeps glibc from making a heap for each of GStreamer's threads, which
// come and go with pipelines and leave their heaps behind.
void few_arenas(void) {
#ifdef __GLIBC__
  mallopt(M_ARENA_MAX, 2);
#endif
}

// trim gives the memory of a pipeline that has ended back to the system.
void trim(void) {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// pulled_take waits up to timeout for a sample. FALSE: none came.
gboolean pulled_take(GstElement *appsink, GstClockTime timeout, pulled *out) {
  memset(out, 0, sizeof *out);
  GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(appsink), timeout);
  if (!sample) {
    out->eos = gst_app_sink_is_eos(GST_APP_SINK(appsink));
    return FALSE;
  }
  out->sample = sample;
  GstCaps *caps = gst_sample_get_caps(sample);
  out->rtp = caps && gst_structure_has_name(gst_caps_get_structure(caps, 0), "application/x-rtp");
  GstBuffer *first = gst_sample_get_buffer(sample);
  GstBufferList *list = gst_sample_get_buffer_list(sample);
  if (list) {
    out->packets = gst_buffer_list_length(list);
    out->bytes = gst_buffer_list_calculate_size(list);
    first = out->packets ? gst_buffer_list_get(list, 0) : NULL;
  } else if (first) {
    out->packets = 1;
    out->bytes = gst_buffer_get_size(first);
  }
  out->running = GST_CLOCK_TIME_NONE;
  if (first) {
    out->discont = GST_BUFFER_FLAG_IS_SET(first, GST_BUFFER_FLAG_DISCONT);
    GstSegment *segment = gst_sample_get_segment(sample);
    if (segment && segment->format == GST_FORMAT_TIME)
      out->running = gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(first));
  }
  return TRUE;
}

void pulled_drop(pulled *p) {
  if (p->sample) gst_sample_unref(p->sample);
  p->sample = NULL;
}

// copy_payload appends one RTP packet's payload to dst and says what its header was.
// gst_buffer_extract works across memories: payloaders put header and payload apart.
static gsize copy_payload(GstBuffer *b, guint8 *dst, gsize room, packet_fact *fact) {
  guint8 h[12], e[4];
  gsize size = gst_buffer_get_size(b), start = 12, end = size;
  memset(fact, 0, sizeof *fact);
  fact->bad = 1;
  if (gst_buffer_extract(b, 0, h, 12) != 12 || h[0] >> 6 != 2) return 0;
  start += 4 * (h[0] & 15);
  if (h[0] & 0x10) {
    if (gst_buffer_extract(b, start, e, 4) != 4) return 0;
    start += 4 + 4 * (e[2] << 8 | e[3]);
  }
  if (h[0] & 0x20) {
    if (gst_buffer_extract(b, size - 1, e, 1) != 1) return 0;
    end -= MIN(e[0], size);
  }
  if (start > end || end - start > room) return 0;
  fact->marker = h[1] >> 7;
  fact->seq = h[2] << 8 | h[3];
  fact->timestamp = (guint32)h[4] << 24 | h[5] << 16 | h[6] << 8 | h[7];
  fact->size = gst_buffer_extract(b, start, dst, end - start);
  fact->bad = 0;
  return fact->size;
}

// pulled_copy_rtp copies all payloads one after the other and releases the sample.
gsize pulled_copy_rtp(pulled *p, guint8 *dst, gsize room, packet_fact *facts) {
  gsize n = 0;
  GstBufferList *list = gst_sample_get_buffer_list(p->sample);
  for (guint i = 0; i < p->packets; i++) {
    GstBuffer *b = list ? gst_buffer_list_get(list, i) : gst_sample_get_buffer(p->sample);
    n += copy_payload(b, dst + n, room - n, &facts[i]);
  }
  pulled_drop(p);
  return n;
}

// pulled_copy_raw copies the sample's bytes as they are and releases it.
gsize pulled_copy_raw(pulled *p, guint8 *dst, gsize room) {
  gsize n = 0;
  GstBufferList *list = gst_sample_get_buffer_list(p->sample);
  for (guint i = 0; i < p->packets; i++) {
    GstBuffer *b = list ? gst_buffer_list_get(list, i) : gst_sample_get_buffer(p->sample);
    n += gst_buffer_extract(b, 0, dst + n, room - n);
  }
  pulled_drop(p);
  return n;
}

gboolean element_is(GstElement *e, const char *factory) {
  GstElementFactory *f = gst_element_get_factory(e);
  return f && strcmp(GST_OBJECT_NAME(f), factory) == 0;
}

// no_preroll lets the pipeline play without waiting for this sink's first frame.
void no_preroll(GstElement *appsink) { g_object_set(appsink, "async", FALSE, NULL); }

// graph_parse makes the pipeline that a launch text describes. NULL: error says why.
GstElement *graph_parse(const char *text, GError **error) {
  GstElement *e = gst_parse_launch_full(text, NULL, GST_PARSE_FLAG_FATAL_ERRORS, error);
  if (e && !GST_IS_PIPELINE(e)) {
    gst_object_unref(gst_object_ref_sink(e));
    g_set_error_literal(error, GST_PARSE_ERROR, GST_PARSE_ERROR_SYNTAX, "it must be elements that are linked with \"!\"");
    return NULL;
  }
  return e;
}

// graph_follow has a pipeline count its running time as another one does, and use
// the devices that the other has opened.
void graph_follow(GstElement *pipeline, GstElement *leader) {
  gst_element_set_start_time(pipeline, GST_CLOCK_TIME_NONE);  // no base time of its own
  gst_element_set_base_time(pipeline, gst_element_get_base_time(leader));
  GList *contexts = gst_element_get_contexts(leader);
  for (GList *l = contexts; l; l = l->next) gst_element_set_context(pipeline, l->data);
  g_list_free_full(contexts, (GDestroyNotify)gst_context_unref);
}

// set_text sets a property of any type. FALSE: there is none of that name.
gboolean set_text(GstElement *e, const char *property, const char *value) {
  GParamSpec *spec = g_object_class_find_property(G_OBJECT_GET_CLASS(e), property);
  if (!spec || !(spec->flags & G_PARAM_WRITABLE)) return FALSE;
  gst_util_set_object_arg(G_OBJECT(e), property, value);
  return TRUE;
}

// branch_is_live walks up to the source that feeds the appsink: 1 it captures, 0 it
// yields as fast as it is taken from, -1 it doesn't say.
int branch_is_live(GstElement *appsink) {
  int answer = -1;
  GstElement *e = gst_object_ref(appsink);
  for (int i = 0; e && i < 64; i++) {
    GstPad *pad = gst_element_get_static_pad(e, "sink");
    if (!pad) {
      if (GST_IS_BASE_SRC(e)) answer = gst_base_src_is_live(GST_BASE_SRC(e));
      break;
    }
    GstPad *peer = gst_pad_get_peer(pad);
    gst_object_unref(pad);
    gst_object_unref(e);
    e = peer ? gst_pad_get_parent_element(peer) : NULL;
    if (peer) gst_object_unref(peer);
  }
  if (e) gst_object_unref(e);
  return answer;
}

// keep_pace makes the appsink hold each buffer until its time has come.
void keep_pace(GstElement *appsink) { g_object_set(appsink, "sync", TRUE, "drop", FALSE, NULL); }

// pad_force_keyframe sends an upstream GstForceKeyUnit out of the appsink: it
// reaches the encoder of this branch alone.
gboolean pad_force_keyframe(GstElement *appsink) {
  GstPad *pad = gst_element_get_static_pad(appsink, "sink");
  if (!pad) return FALSE;
  gboolean ok = gst_pad_push_event(pad, gst_video_event_new_upstream_force_key_unit(GST_CLOCK_TIME_NONE, TRUE, 0));
  gst_object_unref(pad);
  return ok;
}

// pad_upstream_size walks up from the appsink to the first caps that tell a size.
gboolean pad_upstream_size(GstElement *appsink, int *width, int *height, double *fps) {
  gboolean found = FALSE;
  GstPad *pad = gst_element_get_static_pad(appsink, "sink");
  for (int i = 0; pad && i < 12 && !found; i++) {
    GstCaps *caps = gst_pad_get_current_caps(pad);
    if (caps) {
      GstStructure *s = gst_caps_get_structure(caps, 0);
      int n = 0, d = 1;
      if (gst_structure_get_int(s, "width", width) && gst_structure_get_int(s, "height", height)) {
        found = TRUE;
        if (gst_structure_get_fraction(s, "framerate", &n, &d) && d > 0) *fps = (double)n / d;
      }
      gst_caps_unref(caps);
    }
    GstPad *peer = gst_pad_get_peer(pad);
    gst_object_unref(pad);
    pad = NULL;
    if (!peer) break;
    GstElement *parent = gst_pad_get_parent_element(peer);
    gst_object_unref(peer);
    if (!parent) break;
    pad = gst_element_get_static_pad(parent, "sink");
    gst_object_unref(parent);
  }
  if (pad) gst_object_unref(pad);
  return found;
}

static void int_range(const GValue *v, int *min, int *max) {
  if (!v) return;
  if (G_VALUE_HOLDS_INT(v)) {
    *min = *max = g_value_get_int(v);
  } else if (GST_VALUE_HOLDS_INT_RANGE(v)) {
    *min = gst_value_get_int_range_min(v);
    *max = gst_value_get_int_range_max(v);
  } else if (GST_VALUE_HOLDS_LIST(v)) {
    for (guint i = 0; i < gst_value_list_get_size(v); i++) {
      int lo = 0, hi = 0;
      int_range(gst_value_list_get_value(v, i), &lo, &hi);
      if (i == 0 || lo < *min) *min = lo;
      if (hi > *max) *max = hi;
    }
  }
}

static double fraction(const GValue *v) {
  int d = gst_value_get_fraction_denominator(v);
  return d ? (double)gst_value_get_fraction_numerator(v) / d : 0;
}

static void rates(const GValue *v, source_format *f) {
  if (!v) return;
  if (GST_VALUE_HOLDS_FRACTION(v)) {
    double r = fraction(v);
    if (f->n_rates < 32) f->rates[f->n_rates++] = r;
    if (r > f->max_fps) f->max_fps = r;
  } else if (GST_VALUE_HOLDS_FRACTION_RANGE(v)) {
    double r = fraction(gst_value_get_fraction_range_max(v));
    if (r > f->max_fps) f->max_fps = r;
  } else if (GST_VALUE_HOLDS_LIST(v)) {
    for (guint i = 0; i < gst_value_list_get_size(v); i++) rates(gst_value_list_get_value(v, i), f);
  }
}

// formats_of reads what caps describe; nothing of caps that are any.
int formats_of(const GstCaps *caps, source_format *out, int room) {
  int n = 0;
  if (gst_caps_is_any(caps)) return 0;
  for (guint i = 0; i < gst_caps_get_size(caps) && n < room; i++) {
    GstStructure *s = gst_caps_get_structure(caps, i);
    source_format *f = &out[n++];
    memset(f, 0, sizeof *f);
    g_strlcpy(f->media_type, gst_structure_get_name(s), sizeof f->media_type);
    int_range(gst_structure_get_value(s, "width"), &f->min_width, &f->max_width);
    int_range(gst_structure_get_value(s, "height"), &f->min_height, &f->max_height);
    rates(gst_structure_get_value(s, "framerate"), f);
  }
  return n;
}

// caps_formats asks what the element linked to sink can deliver now.
int caps_formats(GstElement *sink, source_format *out, int room) {
  GstPad *pad = gst_element_get_static_pad(sink, "sink");
  if (!pad) return 0;
  GstCaps *caps = gst_pad_peer_query_caps(pad, NULL);
  gst_object_unref(pad);
  if (!caps) return 0;
  int n = formats_of(caps, out, room);
  gst_caps_unref(caps);
  return n;
}

// push_only feeds one buffer and ends the stream.
gboolean push_only(GstElement *appsrc, const guint8 *data, gsize size) {
  GstBuffer *b = gst_buffer_new_allocate(NULL, size, NULL);
  if (!b) return FALSE;
  gst_buffer_fill(b, 0, data, size);
  GST_BUFFER_PTS(b) = 0;
  return gst_app_src_push_buffer(GST_APP_SRC(appsrc), b) == GST_FLOW_OK &&
         gst_app_src_end_of_stream(GST_APP_SRC(appsrc)) == GST_FLOW_OK;
}

void set_threshold(const char *categories) { gst_debug_set_threshold_from_string(categories, TRUE); }

// use_system_clock keeps a pipeline on CLOCK_MONOTONIC, whatever clocks its
// elements (a sound card's, say) would offer.
void use_system_clock(GstElement *pipeline) {
  GstClock *clock = gst_system_clock_obtain();
  gst_pipeline_use_clock(GST_PIPELINE(pipeline), clock);
  gst_object_unref(clock);
}

// factory_of names the element type of a message's source, or "" if it is no
// element. The caller frees it.
char *factory_of(GstObject *object) {
  if (object && GST_IS_ELEMENT(object)) {
    GstElementFactory *f = gst_element_get_factory(GST_ELEMENT(object));
    if (f) return g_strdup(GST_OBJECT_NAME(f));
  }
  return g_strdup("");
}
