/* A portable disk's network and cloud-init: what init runs, with the merged root, before the workload starts.
 *
 * The sequence:
 *
 *     source    find a volume with metadata, read it
 *     network   lo, addresses and routes; udhcpc is started where DHCP is wanted
 *     instance  users, files and scripts go into the merged root, once for each instance id
 *     leases    wait for the first
 *     answer    the host name and the name servers, for init to put in place
 *
 * Nothing that is wrong with the metadata keeps the workload from starting: it is said on the console and left out. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "answer.h"
#include "instance.h"
#include "lease.h"
#include "memory.h"
#include "network.h"
#include "say.h"
#include "setup.h"
#include "source.h"
#include "tree.h"

enum { EXIT_USAGE = 2 };

struct options {
    const char *root, *source;
    const char *interfaces[INTERFACES_MAX + 1]; /* the first is NULL: all cards */
    int wants_network;
};

static const char usage[] =
    "usage: cloud [--source DIRECTORY] [--no-network | --interface NAME...] ROOT\n"
    "  ROOT                the machine's merged root file system\n"
    "  --source DIRECTORY  read metadata there, instead of looking for a volume with it\n"
    "  --interface NAME    configure this interface and no other; as often as wanted\n"
    "  --no-network        leave the network as it is\n";

/* Returns whether the arguments are right. */
static int parse(struct options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"source", required_argument, NULL, 's'},
        {"interface", required_argument, NULL, 'i'},
        {"no-network", no_argument, NULL, 'n'},
        {0},
    };
    int count = 0;
    *options = (struct options){.wants_network = 1};
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (option == 's')
            options->source = optarg;
        else if (option == 'i' && count < INTERFACES_MAX)
            options->interfaces[count++] = optarg;
        else if (option == 'n')
            options->wants_network = 0;
        else
            return 0;
    }
    options->root = argv[optind];
    return optind + 1 == argc;
}

static void answer_all(const struct network *network, const char *hostname)
{
    if (hostname && *hostname)
        answer("hostname", hostname);
    for (int i = 0; i < network->nameserver_count; i++)
        answer("nameserver", network->nameservers[i]);
}

int main(int argc, char **argv)
{
    static struct network network;
    static struct source source;
    struct options options;
    struct instance instance;
    struct leases leases = {.pipe = -1};
    signal(SIGPIPE, SIG_IGN);
    if (argc == 2 && lease_is_event(argv[1]))
        return lease_event(argv[1]);
    answer_open();
    umask(022);
    if (!parse(&options, argc, argv)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (tree_enter(options.root) < 0)
        say("no users and files are made: %s: %s", options.root, strerror(errno));
    if (options.source)
        source_read(&source, options.source);
    else
        source_find(&source);
    memory_limit();
    if (options.wants_network) {
        const char *const *only = options.interfaces[0] ? options.interfaces : NULL;
        network.interface_count = interface_list(network.interfaces, only);
    }
    network_plan(&network, &source);
    if (options.wants_network) {
        setup_network(&network);
        lease_start(&leases, &network);
    }
    instance_parse(&instance, &source);
    if (source.kind != SOURCE_NONE)
        instance_apply(&instance);
    lease_wait(&leases, &network);
    const char *hostname = instance_hostname(&instance);
    answer_all(&network, hostname ? hostname : leases.hostname);
    instance_free(&instance);
    source_free(&source);
    return EXIT_SUCCESS;
}
