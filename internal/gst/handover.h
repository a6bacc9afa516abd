// How what one appsink yields is handed to the appsrcs of other pipelines.
#pragma once

#include <gst/gst.h>

typedef struct handover handover;
typedef struct outlet outlet;

handover *handover_new(GstElement *appsink);
outlet *handover_attach(handover *h, GstElement *appsrc);
void handover_detach(handover *h, outlet *o);

guint64 outlet_dropped(outlet *o);
gboolean outlet_lost(outlet *o, GstClockTime running);
void outlet_free(outlet *o);
