#include "facts.h"

#include <string.h>

static void unit(GString *s, const char *text) {
  g_string_append(s, text ? text : "");
  g_string_append(s, UNIT);
}

// element_names lists the factories of all elements; typefinders and device
// providers are none.
char *element_names(void) {
  GString *s = g_string_new(NULL);
  GList *all = gst_registry_get_feature_list(gst_registry_get(), GST_TYPE_ELEMENT_FACTORY);
  for (GList *l = all; l; l = l->next) unit(s, GST_OBJECT_NAME(l->data));
  gst_plugin_feature_list_free(all);
  return g_string_free(s, FALSE);
}

// element_classes lists the factories of all elements, each with its class.
char *element_classes(void) {
  GString *s = g_string_new(NULL);
  GList *all = gst_registry_get_feature_list(gst_registry_get(), GST_TYPE_ELEMENT_FACTORY);
  for (GList *l = all; l; l = l->next) {
    unit(s, GST_OBJECT_NAME(l->data));
    unit(s, gst_element_factory_get_metadata(l->data, GST_ELEMENT_METADATA_KLASS));
  }
  gst_plugin_feature_list_free(all);
  return g_string_free(s, FALSE);
}

// element_remove has this process forget a factory: nothing can make its elements.
void element_remove(const char *factory) {
  GstRegistry *registry = gst_registry_get();
  GstPluginFeature *f = gst_registry_find_feature(registry, factory, GST_TYPE_ELEMENT_FACTORY);
  if (!f) return;
  gst_registry_remove_feature(registry, f);
  gst_object_unref(f);
}

// plugin_list names all plugins with their versions and files.
char *plugin_list(void) {
  GString *s = g_string_new(NULL);
  GList *all = gst_registry_get_plugin_list(gst_registry_get());
  for (GList *l = all; l; l = l->next) {
    unit(s, gst_plugin_get_name(l->data));
    unit(s, gst_plugin_get_version(l->data));
    unit(s, gst_plugin_get_filename(l->data));
  }
  gst_plugin_list_free(all);
  return g_string_free(s, FALSE);
}

// plugin_rows has five units for each plugin, also for those that can't be loaded:
// name, version, source package, file, and whether loading it was given up.
char *plugin_rows(void) {
  GString *s = g_string_new(NULL);
  GList *all = gst_registry_get_plugin_list(gst_registry_get());
  for (GList *l = all; l; l = l->next) {
    GstPlugin *p = l->data;
    unit(s, gst_plugin_get_name(p));
    unit(s, gst_plugin_get_version(p));
    unit(s, gst_plugin_get_source(p));
    unit(s, gst_plugin_get_filename(p));
    unit(s, GST_OBJECT_FLAG_IS_SET(p, GST_PLUGIN_FLAG_BLACKLISTED) ? "1" : "");
  }
  gst_plugin_list_free(all);
  return g_string_free(s, FALSE);
}

static const char *type_word(GParamSpec *p) {
  GType t = p->value_type;
  if (G_TYPE_IS_ENUM(t)) return "word";
  if (G_TYPE_IS_FLAGS(t)) return "words";
  if (t == GST_TYPE_FRACTION) return "fraction";
  if (t == GST_TYPE_CAPS) return "caps";
  switch (G_TYPE_FUNDAMENTAL(t)) {
    case G_TYPE_BOOLEAN: return "truth value";
    case G_TYPE_STRING: return "text";
    case G_TYPE_FLOAT:
    case G_TYPE_DOUBLE: return "number";
    case G_TYPE_INT:
    case G_TYPE_UINT:
    case G_TYPE_INT64:
    case G_TYPE_UINT64:
    case G_TYPE_LONG:
    case G_TYPE_ULONG:
    case G_TYPE_CHAR:
    case G_TYPE_UCHAR: return "whole number";
  }
  return g_type_name(t);
}

static char *number(double v) {
  char text[G_ASCII_DTOSTR_BUF_SIZE];
  return g_strdup(g_ascii_formatd(text, sizeof text, "%g", v));
}

static void range(GParamSpec *p, char **min, char **max) {
  *min = *max = NULL;
  if (G_IS_PARAM_SPEC_INT(p)) {
    *min = g_strdup_printf("%d", G_PARAM_SPEC_INT(p)->minimum);
    *max = g_strdup_printf("%d", G_PARAM_SPEC_INT(p)->maximum);
  } else if (G_IS_PARAM_SPEC_UINT(p)) {
    *min = g_strdup_printf("%u", G_PARAM_SPEC_UINT(p)->minimum);
    *max = g_strdup_printf("%u", G_PARAM_SPEC_UINT(p)->maximum);
  } else if (G_IS_PARAM_SPEC_INT64(p)) {
    *min = g_strdup_printf("%" G_GINT64_FORMAT, G_PARAM_SPEC_INT64(p)->minimum);
    *max = g_strdup_printf("%" G_GINT64_FORMAT, G_PARAM_SPEC_INT64(p)->maximum);
  } else if (G_IS_PARAM_SPEC_UINT64(p)) {
    *min = g_strdup_printf("%" G_GUINT64_FORMAT, G_PARAM_SPEC_UINT64(p)->minimum);
    *max = g_strdup_printf("%" G_GUINT64_FORMAT, G_PARAM_SPEC_UINT64(p)->maximum);
  } else if (G_IS_PARAM_SPEC_LONG(p)) {
    *min = g_strdup_printf("%ld", G_PARAM_SPEC_LONG(p)->minimum);
    *max = g_strdup_printf("%ld", G_PARAM_SPEC_LONG(p)->maximum);
  } else if (G_IS_PARAM_SPEC_ULONG(p)) {
    *min = g_strdup_printf("%lu", G_PARAM_SPEC_ULONG(p)->minimum);
    *max = g_strdup_printf("%lu", G_PARAM_SPEC_ULONG(p)->maximum);
  } else if (G_IS_PARAM_SPEC_FLOAT(p)) {
    *min = number(G_PARAM_SPEC_FLOAT(p)->minimum);
    *max = number(G_PARAM_SPEC_FLOAT(p)->maximum);
  } else if (G_IS_PARAM_SPEC_DOUBLE(p)) {
    *min = number(G_PARAM_SPEC_DOUBLE(p)->minimum);
    *max = number(G_PARAM_SPEC_DOUBLE(p)->maximum);
  } else if (GST_IS_PARAM_SPEC_FRACTION(p)) {
    GstParamSpecFraction *f = GST_PARAM_SPEC_FRACTION(p);
    *min = g_strdup_printf("%d/%d", f->min_num, f->min_den);
    *max = g_strdup_printf("%d/%d", f->max_num, f->max_den);
  }
}

static void one_property(GString *s, GParamSpec *p) {
  char *min, *max, *def = NULL;
  range(p, &min, &max);
  const GValue *v = g_param_spec_get_default_value(p);
  if (v && G_VALUE_HOLDS_STRING(v)) def = g_strdup(g_value_get_string(v));
  else if (v && (min || G_IS_PARAM_SPEC_BOOLEAN(p) || G_IS_PARAM_SPEC_ENUM(p) || G_IS_PARAM_SPEC_FLAGS(p)))
    def = gst_value_serialize(v); // not of boxed ones: it doesn't take their NULL
  unit(s, "property");
  unit(s, p->name);
  unit(s, type_word(p));
  unit(s, p->flags & G_PARAM_WRITABLE ? "1" : "");
  unit(s, p->flags & G_PARAM_DEPRECATED ? "1" : "");
  unit(s, def);
  unit(s, min);
  unit(s, max);
  if (G_IS_PARAM_SPEC_ENUM(p)) {
    GEnumClass *c = G_PARAM_SPEC_ENUM(p)->enum_class;
    for (guint i = 0; i < c->n_values; i++) unit(s, c->values[i].value_nick);
  } else if (G_IS_PARAM_SPEC_FLAGS(p)) {
    GFlagsClass *c = G_PARAM_SPEC_FLAGS(p)->flags_class;
    for (guint i = 0; i < c->n_values; i++) unit(s, c->values[i].value_nick);
  }
  g_string_append(s, RECORD);
  g_free(min);
  g_free(max);
  g_free(def);
}

// loaded loads the factory's plugin; NULL if there is none. The caller unrefs it.
static GstElementFactory *loaded(const char *factory) {
  GstElementFactory *f = gst_element_factory_find(factory);
  if (!f) return NULL;
  GstElementFactory *l = GST_ELEMENT_FACTORY(gst_plugin_feature_load(GST_PLUGIN_FEATURE(f)));
  gst_object_unref(f);
  return l;
}

// element_facts describes an element type without making one; NULL if it can't be
// loaded.
char *element_facts(const char *factory) {
  GstElementFactory *f = loaded(factory);
  if (!f) return NULL;
  GType type = gst_element_factory_get_element_type(f);
  GObjectClass *class = g_type_class_ref(type);
  GString *s = g_string_new(NULL);
  unit(s, "element");
  unit(s, gst_element_factory_get_metadata(f, GST_ELEMENT_METADATA_KLASS));
  unit(s, g_type_is_a(type, GST_TYPE_CHILD_PROXY) ? "1" : "");
  g_string_append(s, RECORD);
  for (const GList *l = gst_element_factory_get_static_pad_templates(f); l; l = l->next) {
    GstStaticPadTemplate *t = l->data;
    GstCaps *caps = gst_static_pad_template_get_caps(t);
    char *text = gst_caps_to_string(caps);
    unit(s, "pad");
    unit(s, t->name_template);
    unit(s, t->direction == GST_PAD_SRC ? "1" : "");
    unit(s, t->presence == GST_PAD_ALWAYS ? "always" : t->presence == GST_PAD_REQUEST ? "request" : "sometimes");
    unit(s, text);
    g_string_append(s, RECORD);
    g_free(text);
    gst_caps_unref(caps);
  }
  guint n = 0;
  GParamSpec **props = g_object_class_list_properties(class, &n);
  for (guint i = 0; i < n; i++) one_property(s, props[i]);
  g_free(props);
  g_type_class_unref(class);
  gst_object_unref(f);
  return g_string_free(s, FALSE);
}

static gboolean add_field(GQuark id, const GValue *value, gpointer set) {
  (void)value;
  g_hash_table_add(set, (gpointer)g_quark_to_string(id));
  return TRUE;
}

// caps_fields lists the fields that any installed element's pads know of a media type.
char *caps_fields(const char *media_type) {
  GHashTable *set = g_hash_table_new(g_str_hash, g_str_equal);
  GList *all = gst_registry_get_feature_list(gst_registry_get(), GST_TYPE_ELEMENT_FACTORY);
  for (GList *l = all; l; l = l->next)
    for (const GList *p = gst_element_factory_get_static_pad_templates(l->data); p; p = p->next) {
      GstCaps *caps = gst_static_pad_template_get_caps(p->data);
      for (guint i = 0; !gst_caps_is_any(caps) && i < gst_caps_get_size(caps); i++) {
        GstStructure *st = gst_caps_get_structure(caps, i);
        if (gst_structure_has_name(st, media_type)) gst_structure_foreach(st, add_field, set);
      }
      gst_caps_unref(caps);
    }
  gst_plugin_feature_list_free(all);
  GString *s = g_string_new(NULL);
  GHashTableIter it;
  gpointer field;
  g_hash_table_iter_init(&it, set);
  while (g_hash_table_iter_next(&it, &field, NULL)) unit(s, field);
  g_hash_table_destroy(set);
  return g_string_free(s, FALSE);
}

// property_accepts tells whether a launch text may give the property that value:
// what gst_parse_launch reads, and what g_object_set_property then takes.
gboolean property_accepts(const char *factory, const char *property, const char *value) {
  GstElementFactory *f = loaded(factory);
  if (!f) return FALSE;
  GObjectClass *class = g_type_class_ref(gst_element_factory_get_element_type(f));
  GParamSpec *p = g_object_class_find_property(class, property);
  gboolean ok = FALSE;
  if (p) {
    GValue v = G_VALUE_INIT;
    g_value_init(&v, p->value_type);
    if (gst_value_deserialize_with_pspec(&v, value, p))
      ok = !g_param_value_validate(p, &v) || p->flags & G_PARAM_LAX_VALIDATION;
    else
      ok = g_type_is_a(p->value_type, GST_TYPE_ELEMENT); // a pipeline of its own, in launch text
    g_value_unset(&v);
  }
  g_type_class_unref(class);
  gst_object_unref(f);
  return ok;
}

// --- links ---

// templates are the pads' caps of one direction, those that are always there
// first. NULL if the element has none.
static GstCaps *template_caps(GstElement *e, GstPadDirection direction, GstPadPresence presence) {
  GstCaps *caps = NULL;
  for (const GList *l = gst_element_class_get_pad_template_list(GST_ELEMENT_GET_CLASS(e)); l; l = l->next) {
    GstPadTemplate *t = l->data;
    if (t->direction != direction || t->presence != presence) continue;
    GstCaps *more = gst_pad_template_get_caps(t);
    caps = caps ? gst_caps_merge(caps, more) : more;
  }
  return caps;
}

static GstElement *filter(GstCaps *caps) {
  GstElement *e = gst_element_factory_make("capsfilter", NULL);
  if (e) g_object_set(e, "caps", caps, NULL);
  gst_caps_unref(caps);
  return e;
}

// stand_in takes the place of a source, so that no device is opened: it offers what
// the source's pads can. Sources that are told their caps offer those by themselves.
static GstElement *stand_in(GstElement *e) {
  GstCaps *takes = template_caps(e, GST_PAD_SINK, GST_PAD_REQUEST);
  if (takes) gst_caps_unref(takes);
  if (e->numsinkpads || takes) return e;
  if (g_object_class_find_property(G_OBJECT_GET_CLASS(e), "caps")) return e;
  GstCaps *caps = template_caps(e, GST_PAD_SRC, GST_PAD_ALWAYS);
  if (!caps) caps = template_caps(e, GST_PAD_SRC, GST_PAD_SOMETIMES);
  if (!caps) return e;
  gst_object_unref(gst_object_ref_sink(e));
  return filter(caps);
}

// present_pad is an unlinked pad that the element has: one that caps fit, if there
// is one (textoverlay takes pictures by one pad and text by another), else the
// first. The caller unrefs it.
static GstPad *present_pad(GstElement *e, GstPadDirection direction, GstCaps *caps) {
  GstPad *any = NULL;
  for (GList *l = direction == GST_PAD_SRC ? e->srcpads : e->sinkpads; l; l = l->next) {
    if (gst_pad_is_linked(l->data)) continue;
    GstCaps *have = caps ? gst_pad_query_caps(l->data, NULL) : NULL;
    gboolean fits = !caps || gst_caps_can_intersect(have, caps);
    if (have) gst_caps_unref(have);
    if (fits) return gst_object_ref(l->data);
    if (!any) any = l->data;
  }
  return any ? gst_object_ref(any) : NULL;
}

// free_pad is an unlinked pad of the element, made on request if need be. The
// caller unrefs it.
static GstPad *free_pad(GstElement *e, GstPadDirection direction, GstCaps *caps) {
  GstPad *any = present_pad(e, direction, caps);
  if (any) return any;
  for (const GList *l = gst_element_class_get_pad_template_list(GST_ELEMENT_GET_CLASS(e)); l; l = l->next) {
    GstPadTemplate *t = l->data;
    if (t->direction != direction || t->presence != GST_PAD_REQUEST) continue;
    GstCaps *have = gst_pad_template_get_caps(t);
    gboolean fits = !caps || gst_caps_can_intersect(have, caps);
    gst_caps_unref(have);
    if (!fits && any) continue;
    GstPad *pad = gst_element_request_pad(e, t, NULL, caps);
    if (pad && fits) {
      if (any) gst_object_unref(any);
      return pad;
    }
    if (pad) any = pad;
  }
  return any;
}

static char *value_text(const GValue *v) {
  if (!v) return g_strdup("");
  if (G_VALUE_HOLDS_STRING(v)) return g_strdup(g_value_get_string(v));
  char *s = gst_value_serialize(v);
  char *plain = s ? g_strdelimit(g_strdup(s), "\"", ' ') : g_strdup("?");
  g_free(s);
  return plain;
}

static char *media_types(GstCaps *caps) {
  GString *s = g_string_new(NULL);
  if (gst_caps_is_any(caps)) return g_string_free(g_string_append(s, "anything"), FALSE);
  for (guint i = 0; i < gst_caps_get_size(caps); i++) {
    const char *name = gst_structure_get_name(gst_caps_get_structure(caps, i));
    if (strstr(s->str, name)) continue;
    if (s->len) g_string_append(s, ", ");
    g_string_append(s, name);
  }
  return g_string_free(s, FALSE);
}

typedef struct {
  const GstStructure *other;
  int count;
  const char *first;
} disagreement;

static gboolean compare_field(GQuark id, const GValue *value, gpointer data) {
  disagreement *d = data;
  const GValue *theirs = gst_structure_id_get_value(d->other, id);
  if (theirs && !gst_value_intersect(NULL, value, theirs)) { // gst_value_can_intersect takes any list for common
    if (!d->count++) d->first = g_quark_to_string(id);
  }
  return TRUE;
}

// disagree finds the pair of structures that is nearest to fitting, and the field
// that keeps it from it.
static void disagree(GstCaps *up, GstCaps *down, link_fault *out) {
  int least = G_MAXINT;
  guint up_at = 0, down_at = 0;
  if (!gst_caps_is_any(up) && !gst_caps_is_any(down))
    for (guint i = 0; i < gst_caps_get_size(up); i++)
      for (guint j = 0; j < gst_caps_get_size(down); j++) {
        GstStructure *a = gst_caps_get_structure(up, i), *b = gst_caps_get_structure(down, j);
        if (gst_structure_get_name_id(a) != gst_structure_get_name_id(b)) continue;
        disagreement d = {b, 0, NULL};
        gst_structure_foreach(a, compare_field, &d);
        if (d.count >= least) continue;
        least = d.count, up_at = i, down_at = j;
        g_free(out->field);
        out->field = g_strdup(d.first ? d.first : "memory");
      }
  if (!out->field) {
    out->up = media_types(up);
    out->down = media_types(down);
    return;
  }
  if (strcmp(out->field, "memory") == 0) {
    out->up = gst_caps_features_to_string(gst_caps_get_features(up, up_at));
    out->down = gst_caps_features_to_string(gst_caps_get_features(down, down_at));
    return;
  }
  // all that is taken, not only by the nearest structure
  GString *takes = g_string_new(NULL);
  GstStructure *a = gst_caps_get_structure(up, up_at);
  for (guint j = 0; j < gst_caps_get_size(down); j++) {
    GstStructure *b = gst_caps_get_structure(down, j);
    if (gst_structure_get_name_id(a) != gst_structure_get_name_id(b)) continue;
    char *text = value_text(gst_structure_get_value(b, out->field));
    if (*text && !strstr(takes->str, text)) {
      if (takes->len) g_string_append(takes, " or ");
      g_string_append(takes, text);
    }
    g_free(text);
  }
  out->up = value_text(gst_structure_get_value(a, out->field));
  out->down = g_string_free(takes, FALSE);
}

static gboolean fits(GstPad *src, GstPad *sink, link_fault *out) {
  GstCaps *up = gst_pad_query_caps(src, NULL), *down = gst_pad_query_caps(sink, NULL);
  gboolean ok = gst_caps_can_intersect(up, down);
  if (!ok && gst_caps_is_empty(down)) { // what follows takes nothing: compare with what it could
    gst_caps_unref(down);
    down = gst_pad_get_pad_template_caps(sink);
  }
  if (!ok && gst_caps_is_empty(up)) {
    gst_caps_unref(up);
    up = gst_pad_get_pad_template_caps(src);
  }
  if (!ok && out) disagree(up, down, out);
  gst_caps_unref(up);
  gst_caps_unref(down);
  return ok;
}

// link_chain makes the nodes of a chain and links them one after another, without
// starting any. A source is replaced by what its pads can deliver.
void link_chain(const char **items, const gboolean *caps, int n, link_fault *out) {
  memset(out, 0, sizeof *out);
  out->at = -1;
  GstElement *bin = gst_object_ref_sink(gst_bin_new(NULL));
  GstPad **srcs = g_new0(GstPad *, n + 1), **sinks = g_new0(GstPad *, n + 1);
  GstElement *last = NULL;
  for (int i = 0; i < n && out->at < 0; i++) {
    GstElement *e = NULL;
    if (caps[i]) {
      GstCaps *c = gst_caps_from_string(items[i]);
      if (c) e = filter(c);
    } else {
      GError *err = NULL;
      e = gst_parse_launch_full(items[i], NULL, GST_PARSE_FLAG_FATAL_ERRORS | GST_PARSE_FLAG_NO_SINGLE_ELEMENT_BINS, &err);
      if (!e) out->message = g_strdup(err ? err->message : NULL);
      g_clear_error(&err);
    }
    if (!e) {
      if (!out->message) out->message = g_strdup("these caps can't be read");
      out->at = i;
      break;
    }
    if (i == 0) e = stand_in(e);
    gst_bin_add(GST_BIN(bin), e);
    if (last) {
      GstPad *src = present_pad(last, GST_PAD_SRC, NULL);
      GstCaps *later = src ? NULL : template_caps(last, GST_PAD_SRC, GST_PAD_SOMETIMES);
      if (later) { // its pads come when it runs: all of them at once stand in
        GstCaps *asked = template_caps(last, GST_PAD_SRC, GST_PAD_REQUEST); // rtpbin has both
        last = filter(asked ? gst_caps_merge(later, asked) : later);
        gst_bin_add(GST_BIN(bin), last);
      }
      if (!src) src = free_pad(last, GST_PAD_SRC, NULL);
      GstCaps *have = src ? gst_pad_query_caps(src, NULL) : NULL;
      GstPad *sink = free_pad(e, GST_PAD_SINK, have);
      if (have) gst_caps_unref(have);
      srcs[i] = src;
      sinks[i] = sink;
      if (!src || !sink) {
        out->at = i;
        out->message = g_strdup(src ? "nothing can be linked to it" : "nothing comes out of what is before it");
      } else if (!fits(src, sink, out) || gst_pad_link_full(src, sink, GST_PAD_LINK_CHECK_NOTHING) != GST_PAD_LINK_OK) {
        out->at = i;
      }
    }
    last = e;
  }
  // what is asked for downstream reaches upstream only now
  for (int i = n - 1; i > 0 && out->at < 0; i--)
    if (!fits(srcs[i], sinks[i], out)) out->at = i;
  for (int i = 0; i < n; i++) {
    if (srcs[i]) gst_object_unref(srcs[i]);
    if (sinks[i]) gst_object_unref(sinks[i]);
  }
  g_free(srcs);
  g_free(sinks);
  gst_element_set_state(bin, GST_STATE_NULL);
  gst_object_unref(bin);
}

void link_fault_clear(link_fault *f) {
  g_free(f->message);
  g_free(f->field);
  g_free(f->up);
  g_free(f->down);
}

// --- what runs ---

static void one_link(const GValue *item, gpointer data) {
  GstElement *e = g_value_get_object(item);
  GString *s = data;
  GST_OBJECT_LOCK(e);
  GList *pads = g_list_copy_deep(e->srcpads, (GCopyFunc)gst_object_ref, NULL);
  GST_OBJECT_UNLOCK(e);
  for (GList *l = pads; l; l = l->next) {
    GstCaps *caps = gst_pad_get_current_caps(l->data);
    GstPad *peer = gst_pad_get_peer(l->data);
    GstElement *to = peer ? gst_pad_get_parent_element(peer) : NULL;
    char *text = caps ? gst_caps_to_string(caps) : NULL;
    unit(s, GST_OBJECT_NAME(e));
    unit(s, to ? GST_OBJECT_NAME(to) : "");
    unit(s, text);
    g_string_append(s, RECORD);
    g_free(text);
    if (caps) gst_caps_unref(caps);
    if (to) gst_object_unref(to);
    if (peer) gst_object_unref(peer);
  }
  g_list_free_full(pads, gst_object_unref);
}

// negotiated lists what passes between the elements now: from, to, caps. From source to sink.
char *negotiated(GstElement *pipeline) {
  GString *s = g_string_new(NULL);
  GstIterator *it = gst_bin_iterate_sorted(GST_BIN(pipeline)); // sinks first
  while (gst_iterator_foreach(it, one_link, s) == GST_ITERATOR_RESYNC) {
    gst_iterator_resync(it);
    g_string_truncate(s, 0);
  }
  gst_iterator_free(it);
  return g_string_free(s, FALSE);
}

// dot_graph is the pipeline in the language of Graphviz.
char *dot_graph(GstElement *pipeline) {
  return gst_debug_bin_to_dot_data(GST_BIN(pipeline), GST_DEBUG_GRAPH_SHOW_ALL);
}
