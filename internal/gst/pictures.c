// Whether the pictures that an encoder is given still change, and aren't all black: a
// probe on its sink pad looks at one twice a second. It neither waits nor allocates;
// reading the luma of 1280x720 takes it 0.6 ms (November 2026). It has one writer, the pad's thread,
// and any reader.
#include "pictures.h"

#include <gst/video/video.h>
#include <stdatomic.h>
#include <string.h>

#include "stamps.h"

#define EVERY (450 * GST_MSECOND)
#define BLACK 40       // luma of 8 bits up to which a pixel is black: 16 in limited range, with noise
#define BRIGHT_PART 200 // a picture is black when fewer than one pixel of so many isn't
#define STEP 4         // of the pixels that are looked at for black, in both directions

struct pictures {
  guint64 looked;           // when; of the writer
  guint64 hash;             // of the last picture; likewise
  atomic_bool unreadable;   // they aren't in memory that the CPU reads, or of another kind
  atomic_ullong seen;       // when the last one was looked at; 0: none yet
  atomic_ullong changed;    // when it last differed from the one before
  atomic_ullong bright;     // when one last wasn't black
};

// luma is the component that stands for brightness: Y, or green, which is the most of it.
static int luma(const GstVideoFormatInfo *f) { return GST_VIDEO_FORMAT_INFO_IS_RGB(f) ? 1 : 0; }

static gboolean readable(const GstVideoFormatInfo *f) {
  return GST_VIDEO_FORMAT_INFO_DEPTH(f, luma(f)) == 8 &&
         (GST_VIDEO_FORMAT_INFO_IS_YUV(f) || GST_VIDEO_FORMAT_INFO_IS_RGB(f) || GST_VIDEO_FORMAT_INFO_IS_GRAY(f)) &&
         !GST_VIDEO_FORMAT_INFO_IS_TILED(f);
}

// mix takes some bytes more into a hash: FNV-1a by words, folded so that none is lost.
static guint64 mix(guint64 hash, guint64 word) {
  hash = (hash ^ word) * 1099511628211u;
  return hash ^ hash >> 29;
}

// look reads a picture: what tells it from others, and whether it is black.
static void look(pictures *p, GstVideoFrame *frame, guint64 now) {
  int c = luma(frame->info.finfo);
  const guint8 *row = GST_VIDEO_FRAME_COMP_DATA(frame, c);
  int stride = GST_VIDEO_FRAME_COMP_STRIDE(frame, c), step = GST_VIDEO_FRAME_COMP_PSTRIDE(frame, c);
  int width = GST_VIDEO_FRAME_COMP_WIDTH(frame, c), height = GST_VIDEO_FRAME_COMP_HEIGHT(frame, c);
  guint64 hash = 14695981039346656037u;
  guint bright = 0, all = 0;
  for (int y = 0; y < height; y++, row += stride) {
    int x = 0;
    for (guint64 word; step == 1 && x + 8 <= width; x += 8) {
      memcpy(&word, row + x, 8);
      hash = mix(hash, word);
    }
    for (; x < width; x++) hash = mix(hash, row[x * step]);
    if (y % STEP) continue;
    for (x = 0; x < width; x += STEP, all++) bright += row[x * step] > BLACK;
  }
  if (p->seen == 0 || hash != p->hash) p->changed = now;
  if (p->seen == 0 || bright * BRIGHT_PART >= all) p->bright = now;
  p->hash = hash;
  p->seen = now;
}

static GstPadProbeReturn on_picture(GstPad *pad, GstPadProbeInfo *info, gpointer user) {
  pictures *p = user;
  guint64 now = g_get_monotonic_time() * 1000;
  if (p->looked != 0 && now - p->looked < EVERY) return GST_PAD_PROBE_OK;
  p->looked = now;
  GstCaps *caps = gst_pad_get_current_caps(pad);
  if (!caps) return GST_PAD_PROBE_OK;
  GstVideoInfo format;
  GstVideoFrame frame;
  gboolean ok = FALSE;
  GstCapsFeatures *features = gst_caps_get_features(caps, 0);
  gboolean plain = !features || gst_caps_features_is_equal(features, GST_CAPS_FEATURES_MEMORY_SYSTEM_MEMORY);
  if (plain && gst_video_info_from_caps(&format, caps) && readable(format.finfo) &&
      gst_video_frame_map(&frame, &format, GST_PAD_PROBE_INFO_BUFFER(info), GST_MAP_READ)) {
    look(p, &frame, now);
    gst_video_frame_unmap(&frame);
    ok = TRUE;
  }
  gst_caps_unref(caps);
  p->unreadable = !ok;
  return GST_PAD_PROBE_OK;
}

// pictures_new begins to look at what the video encoder is given that feeds an appsink.
// NULL: there is none.
pictures *pictures_new(GstElement *appsink) {
  GstElement *encoder = video_encoder(appsink);
  if (!encoder) return NULL;
  GstPad *pad = gst_element_get_static_pad(encoder, "sink");
  gst_object_unref(encoder);
  if (!pad) return NULL;
  pictures *p = g_atomic_rc_box_new0(pictures);
  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, on_picture, g_atomic_rc_box_acquire(p), g_atomic_rc_box_release);
  gst_object_unref(pad);
  return p;
}

// pictures_since tells for how many nanoseconds the pictures have been the same, and
// black. FALSE: they can't be read.
gboolean pictures_since(pictures *p, guint64 *frozen, guint64 *black) {
  guint64 seen = p->seen, changed = p->changed, bright = p->bright;
  *frozen = seen > changed ? seen - changed : 0;
  *black = seen > bright ? seen - bright : 0;
  return !p->unreadable;
}

// pictures_free ends the reader's use of it; the encoder's pad may still write.
void pictures_free(pictures *p) { g_atomic_rc_box_release(p); }
