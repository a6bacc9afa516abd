// What it takes to play a file again and again as if it were one long source.
//
// Where the demuxer can, the end of a round is a SEGMENT_DONE message, and the next
// round is begun by a seek without a flush: no frame is late. Otherwise it is EOS,
// and the next round is begun by one with a flush. Either way the running time has
// to go on where it was. After a flush it would begin at 0; and of some files a
// round is said to be shorter than it was (qtdemux, GStreamer 1.22: by one frame). So
// a segment that begins too early is put off.
#include "native.h"

#include <stdatomic.h>

struct rounds {
  // all but buffers is touched on the pad's streaming thread alone
  GstSegment segment;  // as it goes to the sink
  GstClockTime last;   // running time of the last buffer
  GstClockTime end;    // and when the next one is due
  GstClockTime shift;  // what segments are put off by
  atomic_uint buffers;
};

static void advance(rounds *r, GstBuffer *b) {
  r->buffers++;
  if (r->segment.format != GST_FORMAT_TIME) return;
  GstClockTime at = gst_segment_to_running_time(&r->segment, GST_FORMAT_TIME, GST_BUFFER_PTS(b));
  if (!GST_CLOCK_TIME_IS_VALID(at)) return;
  GstClockTime lasts = GST_BUFFER_DURATION(b);
  if (!GST_CLOCK_TIME_IS_VALID(lasts)) lasts = GST_CLOCK_TIME_IS_VALID(r->last) && at > r->last ? at - r->last : 0;
  r->last = at;
  if (!GST_CLOCK_TIME_IS_VALID(r->end) || at + lasts > r->end) r->end = at + lasts;
}

static GstEvent *put_off(rounds *r, GstEvent *event) {
  gst_event_copy_segment(event, &r->segment);
  if (r->segment.format != GST_FORMAT_TIME) return event;
  if (GST_CLOCK_TIME_IS_VALID(r->end) && r->segment.base + r->shift < r->end) r->shift = r->end - r->segment.base;
  if (r->shift == 0) return event;
  r->segment.base += r->shift;
  GstEvent *later = gst_event_new_segment(&r->segment);
  gst_event_set_seqnum(later, gst_event_get_seqnum(event));
  gst_event_unref(event);
  return later;
}

static GstPadProbeReturn on_data(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  rounds *r = user;
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER)
    advance(r, GST_PAD_PROBE_INFO_BUFFER(info));
  else if (info->type & GST_PAD_PROBE_TYPE_BUFFER_LIST)
    advance(r, gst_buffer_list_get(GST_PAD_PROBE_INFO_BUFFER_LIST(info), 0));
  else if (GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) == GST_EVENT_SEGMENT)
    info->data = put_off(r, GST_PAD_PROBE_INFO_EVENT(info));
  return GST_PAD_PROBE_OK;
}

// rounds_new watches what comes to an appsink of a pipeline that hasn't begun to
// play. It lives as long as the appsink.
rounds *rounds_new(GstElement *appsink) {
  rounds *r = g_new0(rounds, 1);
  gst_segment_init(&r->segment, GST_FORMAT_UNDEFINED);
  r->last = r->end = GST_CLOCK_TIME_NONE;
  GstPad *pad = gst_element_get_static_pad(appsink, "sink");
  GstEvent *segment = gst_pad_get_sticky_event(pad, GST_EVENT_SEGMENT, 0);
  if (segment) {
    gst_event_copy_segment(segment, &r->segment);
    gst_event_unref(segment);
  }
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_BUFFER_LIST | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM,
                    on_data, r, g_free);
  gst_object_unref(pad);
  return r;
}

// rounds_buffers counts what has come.
guint rounds_buffers(rounds *r) { return r->buffers; }

static gboolean seeks(GstElement *e, GstFormat format) {
  gboolean can = FALSE;
  GstQuery *q = gst_query_new_seeking(format);
  if (gst_element_query(e, q)) gst_query_parse_seeking(q, NULL, &can, NULL, NULL);
  gst_query_unref(q);
  return can;
}

static gint stays(gconstpointer item, gconstpointer unused) {
  GstElement *e = g_value_get_object(item);
  (void)unused;
  return GST_IS_BASE_SRC(e) && !seeks(e, GST_FORMAT_BYTES) && !seeks(e, GST_FORMAT_TIME) ? 0 : 1;
}

// can_rewind tells whether all sources can go back, as files can and pipes can't.
gboolean can_rewind(GstElement *pipeline) {
  GValue found = G_VALUE_INIT;
  GstIterator *all = gst_bin_iterate_recurse(GST_BIN(pipeline));
  gboolean one_stays = gst_iterator_find_custom(all, stays, &found, NULL);
  if (one_stays) g_value_unset(&found);
  gst_iterator_free(all);
  return !one_stays;
}

// can_seek tells whether times are known to be sought. Some demuxers say no and do.
gboolean can_seek(GstElement *pipeline) { return seeks(pipeline, GST_FORMAT_TIME); }

// play_again plays from the beginning. segment: its end is a SEGMENT_DONE message;
// flush: what was begun is thrown away.
gboolean play_again(GstElement *pipeline, gboolean segment, gboolean flush) {
  return gst_element_seek(pipeline, 1.0, GST_FORMAT_TIME,
                          (segment ? GST_SEEK_FLAG_SEGMENT : 0) | (flush ? GST_SEEK_FLAG_FLUSH : 0),
                          GST_SEEK_TYPE_SET, 0, GST_SEEK_TYPE_NONE, GST_CLOCK_TIME_NONE);
}
