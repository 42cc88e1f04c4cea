/* Counts calls on the bus and writes down what happens to another name. sd-bus. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <systemd/sd-bus.h>

#define INTERFACE "com.example.Count"
#define OBJECT "/com/example/Count"

static const char *name, *watched;
static uint32_t count;

static void write_line(const char *format, const char *a, const char *b, const char *c) {
    char path[256];
    snprintf(path, sizeof path, "/var/log/%s", name);
    FILE *file = fopen(path, "a");
    if (!file)
        exit(2);
    fprintf(file, format, a, b, c);
    fclose(file);
}

static int next(sd_bus_message *call, void *data, sd_bus_error *error) {
    (void) data, (void) error;
    count++;
    sd_bus_emit_signal(sd_bus_message_get_bus(call), OBJECT, INTERFACE, "Tick", "u", count);
    return sd_bus_reply_method_return(call, "u", count);
}

static int ask(sd_bus_message *call, void *data, sd_bus_error *error) {
    (void) data;
    const char *other;
    uint32_t value;
    sd_bus_message *answer = NULL;
    int r = sd_bus_message_read(call, "s", &other);
    if (r >= 0)
        r = sd_bus_call_method(sd_bus_message_get_bus(call), other, OBJECT, INTERFACE, "Next", error, &answer, "");
    if (r >= 0)
        r = sd_bus_message_read(answer, "u", &value);
    sd_bus_message_unref(answer);
    return r < 0 ? r : sd_bus_reply_method_return(call, "u", value);
}

static int owner_changed(sd_bus_message *signal, void *data, sd_bus_error *error) {
    (void) data, (void) error;
    const char *changed, *old, *new;
    if (sd_bus_message_read(signal, "sss", &changed, &old, &new) >= 0)
        write_line("%s %s %s\n", changed, *old ? "had" : "none", *new ? "has" : "none");
    return 0;
}

static int tick(sd_bus_message *signal, void *data, sd_bus_error *error) {
    (void) data, (void) error;
    uint32_t value;
    char text[16];
    if (sd_bus_message_read(signal, "u", &value) >= 0) {
        snprintf(text, sizeof text, "%u", value);
        write_line("tick %s%s%s\n", text, "", "");
    }
    return 0;
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Next", "", "u", next, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Ask", "s", "u", ask, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_SIGNAL("Tick", "u", 0),
    SD_BUS_VTABLE_END,
};

int main(int argc, char **argv) {
    sd_bus *bus = NULL;
    char rule[512];
    if (argc != 3)
        return 2;
    name = argv[1], watched = argv[2];
    if (sd_bus_open_system(&bus) < 0 || sd_bus_add_object_vtable(bus, NULL, OBJECT, INTERFACE, vtable, NULL) < 0)
        return 1;
    snprintf(rule, sizeof rule, "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='%s'", watched);
    if (sd_bus_add_match(bus, NULL, rule, owner_changed, NULL) < 0)
        return 1;
    if (sd_bus_match_signal(bus, NULL, watched, OBJECT, INTERFACE, "Tick", tick, NULL) < 0)
        return 1;
    if (sd_bus_request_name(bus, name, 0) < 0)
        return 1;
    for (;;) {
        int r = sd_bus_process(bus, NULL);
        if (r < 0)
            return 1;
        if (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0 )
            continue;
    }
}
