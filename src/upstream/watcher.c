/* Keeps one watch per cluster of the configuration.
 * SPDX-License-Identifier: Apache-2.0 */
#include "config.h"
#include "upstream/watcher.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "upstream/watch.h"

struct watcher {
    struct watch_common common;
    struct watcher_ops ops;
    struct list watches;
};

static struct watch *find(const struct watcher *w, const char *cluster)
{
    LIST_EACH(&w->watches, struct watch, link, watch)
        if (strcmp(watch_name(watch), cluster) == 0)
            return watch;
    return NULL;
}

static const struct conf_cluster *row_of(const struct conf *conf, const char *cluster)
{
    for (size_t i = 0; i < conf->cluster_count; i++)
        if (strcmp(conf->clusters[i]->at.name, cluster) == 0)
            return conf->clusters[i];
    return NULL;
}

static void end_watch(struct watcher *w, struct watch *watch)
{
    list_remove(&w->watches, &watch->link);
    watch_free(watch);
}

void watcher_configure(struct watcher *w, const struct conf *conf,
                       const struct credentials *credentials)
{
    resolver_reload(w->common.resolver);
    LIST_EACH(&w->watches, struct watch, link, watch)
        if (!row_of(conf, watch_name(watch))) {
            log_info(NULL, "cluster %s is not watched any more", watch_name(watch));
            end_watch(w, watch);
        }
    for (size_t i = 0; i < conf->cluster_count; i++) {
        const struct conf_cluster *row = conf->clusters[i];
        struct watch *watch = find(w, row->at.name);
        if (watch) {
            watch_configure(watch, conf, row, credentials);
        } else {
            watch = watch_new(&w->common, conf, row, credentials);
            list_push_back(&w->watches, &watch->link);
        }
    }
}

uint64_t watcher_cluster_id(const struct watcher *w, const char *cluster)
{
    const struct watch *watch = find(w, cluster);
    return watch ? watch->id : 0;
}

struct watcher *watcher_new(struct loop *loop, const struct conf *conf,
                            const struct credentials *credentials, const struct watcher_ops *ops,
                            void *arg)
{
    struct watcher *w = NEW(struct watcher);
    w->ops = *ops;
    w->common = (struct watch_common){loop, resolver_new(loop), &w->ops, arg};
    list_init(&w->watches);
    watcher_configure(w, conf, credentials);
    return w;
}

void watcher_free(struct watcher *w)
{
    if (!w)
        return;
    while (!list_is_empty(&w->watches))
        end_watch(w, LIST_FIRST(&w->watches, struct watch, link));
    resolver_free(w->common.resolver);
    mem_free(w);
}
