// What go-gst has no cheap or no safe way for: taking samples out of an appsink
// with one copy and at once giving GStreamer its memory back, and reading caps.
#pragma once

#include <gst/gst.h>
#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/base/gstbasesrc.h>
#include <gst/video/video.h>

#include "handover.h"
#include "pictures.h"
#include "stamps.h"

// pulled is one sample taken out of an appsink, as a run of packets.
typedef struct {
  GstSample *sample;     // owned; released by pulled_copy or pulled_drop
  gboolean rtp;          // RTP packets; else raw media
  gboolean eos;          // no sample: the stream has ended
  guint packets;         // RTP packets, or 1 for raw media
  gsize bytes;           // all bytes, headers included
  GstClockTime running;  // running time of the first buffer, or GST_CLOCK_TIME_NONE
  gboolean discont;      // the first buffer is marked as discontinuous
} pulled;

// packet_fact is what the header of one RTP packet said (RFC 3550 §5.1).
typedef struct {
  guint32 size;       // payload bytes; 0 and bad=1 if the packet can't be read
  guint32 timestamp;
  guint16 seq;
  guint8 marker;
  guint8 bad;
} packet_fact;

// source_format is one structure of a source's caps; zero: unknown.
typedef struct {
  char media_type[64];
  int min_width, max_width, min_height, max_height;
  double max_fps;
  double rates[32];
  int n_rates;
} source_format;

gboolean pulled_take(GstElement *appsink, GstClockTime timeout, pulled *out);
gsize pulled_copy_rtp(pulled *p, guint8 *dst, gsize room, packet_fact *facts);
gsize pulled_copy_raw(pulled *p, guint8 *dst, gsize room);
void pulled_drop(pulled *p);

GstElement *graph_parse(const char *text, GError **error);
void graph_follow(GstElement *pipeline, GstElement *leader);
gboolean set_text(GstElement *e, const char *property, const char *value);
gboolean element_is(GstElement *e, const char *factory);
void no_preroll(GstElement *appsink);
int branch_is_live(GstElement *appsink);
void keep_pace(GstElement *appsink);
gboolean pad_force_keyframe(GstElement *appsink);
gboolean pad_upstream_size(GstElement *appsink, int *width, int *height, double *fps);
int formats_of(const GstCaps *caps, source_format *out, int room);
int caps_formats(GstElement *sink, source_format *out, int room);
gboolean push_only(GstElement *appsrc, const guint8 *data, gsize size);
void use_system_clock(GstElement *pipeline);
char *factory_of(GstObject *object);
void set_threshold(const char *categories);
int x_servers_lost(void);
void few_arenas(void);
void tell_crashes(void);
void trim(void);

typedef struct rounds rounds;

rounds *rounds_new(GstElement *appsink);
guint rounds_buffers(rounds *r);
gboolean can_rewind(GstElement *pipeline);
gboolean can_seek(GstElement *pipeline);
gboolean play_again(GstElement *pipeline, gboolean segment, gboolean flush);
