// What the installed elements are, as the linter asks for it.
#pragma once

#include <gst/gst.h>

// Texts are records, ended by RECORD, of units, ended by UNIT. The caller frees them.
#define UNIT "\x1f"
#define RECORD "\x1e"

// link_fault is why two neighbours can't be linked. Its texts are freed by link_fault_clear.
typedef struct {
  int at; // -1: everything can be linked
  char *message, *field, *up, *down;
} link_fault;

char *element_names(void);
char *plugin_list(void);
char *element_classes(void);
void element_remove(const char *factory);
char *plugin_rows(void);
char *element_facts(const char *factory);
char *caps_fields(const char *media_type);
gboolean property_accepts(const char *factory, const char *property, const char *value);
void link_chain(const char **items, const gboolean *caps, int n, link_fault *out);
void link_fault_clear(link_fault *f);
char *negotiated(GstElement *pipeline);
char *dot_graph(GstElement *pipeline);
