// When an encoder was given each picture, and when it yielded it.
#pragma once

#include <gst/gst.h>

typedef struct stamps stamps;

GstElement *video_encoder(GstElement *appsink);
stamps *stamps_new(GstElement *appsink);
gboolean stamps_find(stamps *s, GstClockTime running, guint64 *in, guint64 *out);
void stamps_free(stamps *s);
