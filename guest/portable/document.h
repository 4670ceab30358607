/* YAML, and JSON with it, as a tree of nodes to look things up in. libyaml parses.
 *
 * What is looked at may be anything: a node that is absent, or of another kind than asked for, is answered as absent, so
 * that a path of look-ups needs one check, at its end. Nothing here walks a tree by itself: anchors can make one that is
 * endless. */
#ifndef CLOUD_DOCUMENT_H
#define CLOUD_DOCUMENT_H

#include <stddef.h>
#include <yaml.h>

#include "bytes.h"

struct document {
    yaml_document_t yaml;
};

struct node {
    yaml_document_t *in;
    yaml_node_t *at; /* NULL: absent, which a null is too */
};

/* Parses the first document of `text`; `name` is what a message calls it. Returns 0, or -1 after saying what is wrong.
 * With 0 it has to be freed. */
int document_parse(struct document *document, const char *name, const struct bytes *text);
void document_free(struct document *document);

/* The whole of it. */
struct node document_root(struct document *document);

int node_is_there(struct node node);
int node_is_map(struct node node);
int node_is_list(struct node node);

/* A scalar's text; NULL where it is none, or holds a NUL. It lives as long as the document. */
const char *node_text(struct node node);

/* A scalar's bytes, whatever they are; NULL where it is none. */
const char *node_bytes(struct node node, size_t *length);

/* Whether a scalar is base64 for bytes (`!!binary`). */
int node_is_binary(struct node node);

/* Whether a scalar is one of YAML's words for true or false; anything else is `otherwise`. */
int node_is_true(struct node node, int otherwise);

/* How many elements a list, or pairs a map, has. */
size_t node_count(struct node node);

/* An element of a list; a map's key and its value. */
struct node node_item(struct node list, size_t index);
const char *node_key(struct node map, size_t index);
struct node node_value(struct node map, size_t index);

/* The value of a key. */
struct node node_get(struct node map, const char *key);

/* The text of a key's value; NULL where there is none. */
const char *node_get_text(struct node map, const char *key);

/* A thing that may be given by itself or as a list of such: how many there are, and one of them. */
size_t node_count_or_one(struct node node);
struct node node_item_or_one(struct node node, size_t index);

#endif
