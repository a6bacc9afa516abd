// Whether the pictures that an encoder is given still change, and aren't all black.
#pragma once

#include <gst/gst.h>

typedef struct pictures pictures;

pictures *pictures_new(GstElement *appsink);
gboolean pictures_since(pictures *p, guint64 *frozen, guint64 *black);
void pictures_free(pictures *p);
