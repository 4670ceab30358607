#include "document.h"

#include <string.h>
#include <strings.h>

#include "say.h"

enum { DEPTH_MAX = 64, NODES_MAX = 100000 };

static const struct node absent;

static void say_problem(const char *name, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR)
        say("%s is left out: it takes too much memory to parse", name);
    else
        say("%s is left out: line %zu, column %zu: %s", name, parser->problem_mark.line + 1,
            parser->problem_mark.column + 1, parser->problem ? parser->problem : "not YAML");
}

/* Goes through the text once without keeping anything: libyaml's time grows with the square of a text's depth. Returns 0, or -1
 * after saying what is wrong. */
static int check(const char *name, const struct bytes *text)
{
    yaml_parser_t parser;
    yaml_event_t event;
    yaml_event_type_t type = YAML_NO_EVENT;
    int depth = 0, nodes = 0, is_well = yaml_parser_initialize(&parser);
    if (is_well)
        yaml_parser_set_input_string(&parser, (const unsigned char *)text->at, text->length);
    while (is_well && type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_END_EVENT) {
        if (!yaml_parser_parse(&parser, &event)) {
            say_problem(name, &parser);
            break;
        }
        type = event.type;
        yaml_event_delete(&event);
        depth += type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT;
        depth -= type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT;
        if (depth > DEPTH_MAX || ++nodes > NODES_MAX) {
            say("%s is left out: it is nested more than %d deep, or has more than %d parts", name, DEPTH_MAX, NODES_MAX);
            break;
        }
    }
    yaml_parser_delete(&parser);
    return type == YAML_DOCUMENT_END_EVENT || type == YAML_STREAM_END_EVENT ? 0 : -1;
}

int document_parse(struct document *document, const char *name, const struct bytes *text)
{
    yaml_parser_t parser;
    if (check(name, text) < 0 || !yaml_parser_initialize(&parser))
        return -1;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text->at, text->length);
    int is_parsed = yaml_parser_load(&parser, &document->yaml);
    if (!is_parsed)
        say_problem(name, &parser);
    yaml_parser_delete(&parser);
    return is_parsed ? 0 : -1;
}

void document_free(struct document *document)
{
    yaml_document_delete(&document->yaml);
}

static int is_null(const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return 0;
    const char *text = (const char *)node->data.scalar.value;
    return !*text || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0;
}

static struct node numbered(yaml_document_t *in, int number)
{
    yaml_node_t *node = yaml_document_get_node(in, number);
    return !node || is_null(node) ? absent : (struct node){.in = in, .at = node};
}

struct node document_root(struct document *document)
{
    yaml_node_t *node = yaml_document_get_root_node(&document->yaml);
    return !node || is_null(node) ? absent : (struct node){.in = &document->yaml, .at = node};
}

int node_is_there(struct node node)
{
    return node.at != NULL;
}

int node_is_map(struct node node)
{
    return node.at && node.at->type == YAML_MAPPING_NODE;
}

int node_is_list(struct node node)
{
    return node.at && node.at->type == YAML_SEQUENCE_NODE;
}

const char *node_bytes(struct node node, size_t *length)
{
    if (!node.at || node.at->type != YAML_SCALAR_NODE)
        return NULL;
    *length = node.at->data.scalar.length;
    return (const char *)node.at->data.scalar.value;
}

const char *node_text(struct node node)
{
    size_t length;
    const char *text = node_bytes(node, &length);
    return text && strlen(text) == length ? text : NULL;
}

int node_is_binary(struct node node)
{
    return node.at && node.at->type == YAML_SCALAR_NODE &&
           strcmp((const char *)node.at->tag, "tag:yaml.org,2002:binary") == 0;
}

int node_is_true(struct node node, int otherwise)
{
    static const char *const words[][2] = {{"true", "false"}, {"yes", "no"}, {"on", "off"}, {"1", "0"}};
    const char *text = node_text(node);
    for (size_t i = 0; text && i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i][0]) == 0)
            return 1;
        if (strcasecmp(text, words[i][1]) == 0)
            return 0;
    }
    return otherwise;
}

size_t node_count(struct node node)
{
    if (node_is_list(node))
        return (size_t)(node.at->data.sequence.items.top - node.at->data.sequence.items.start);
    if (node_is_map(node))
        return (size_t)(node.at->data.mapping.pairs.top - node.at->data.mapping.pairs.start);
    return 0;
}

struct node node_item(struct node list, size_t index)
{
    if (!node_is_list(list) || index >= node_count(list))
        return absent;
    return numbered(list.in, list.at->data.sequence.items.start[index]);
}

const char *node_key(struct node map, size_t index)
{
    if (!node_is_map(map) || index >= node_count(map))
        return NULL;
    return node_text(numbered(map.in, map.at->data.mapping.pairs.start[index].key));
}

struct node node_value(struct node map, size_t index)
{
    if (!node_is_map(map) || index >= node_count(map))
        return absent;
    return numbered(map.in, map.at->data.mapping.pairs.start[index].value);
}

struct node node_get(struct node map, const char *key)
{
    for (size_t i = node_is_map(map) ? node_count(map) : 0; i-- > 0;) { /* of two, the last one is meant */
        const char *found = node_key(map, i);
        if (found && strcmp(found, key) == 0)
            return node_value(map, i);
    }
    return absent;
}

const char *node_get_text(struct node map, const char *key)
{
    return node_text(node_get(map, key));
}

size_t node_count_or_one(struct node node)
{
    return node_is_list(node) ? node_count(node) : (size_t)node_is_there(node);
}

struct node node_item_or_one(struct node node, size_t index)
{
    return node_is_list(node) ? node_item(node, index) : node;
}
