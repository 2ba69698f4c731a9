//! What `--help` says of each command after its options.

/// Of the program, and of `run`.
pub const EXAMPLES: &str = "\
Examples:
  Forward TCP port 80 of this host to port 8080 of another one, and UDP port 53 to a third:
      nodefwd tcp/80=10.0.0.5:8080 udp/53=10.0.0.6

  The same port over IPv4 and IPv6, each connection to one of the destinations at random:
      nodefwd tcp/443=10.0.0.5,10.0.0.6,fd00::5

  A range of ports, for clients of one network only:
      nodefwd --src-ranges 192.168.1.0/24 tcp/8000-8100=10.0.0.5

  As a container of Kubernetes' service load balancer is started:
      DEST_IPS=10.43.0.10 DEST_PROTO=TCP SRC_PORT=80 DEST_PORT=80 nodefwd

  See the rules without installing them, and whether they would work here:
      nodefwd render tcp/80=10.0.0.5:8080
      nodefwd check tcp/80=10.0.0.5:8080

Exit status:
  0  ended by TERM, INT, QUIT or HUP (with --env-file, HUP reloads), and every rule removed
  1  the environment does not allow it, with the reason on standard error
  2  the input is wrong, and nothing was touched";

/// Of `check`.
pub const CHECK_NOTES: &str = "\
Prints one line for each thing that a forwarded connection depends on:
  ok       it is as it should be
  warning  something may be wrong, or is wrong for other programs
  failure  connections are not forwarded, or not all of them
Warnings and failures name the command that mends it. What check cannot follow is a warning: not looked at.

The kernel checks the rules and throws them away before any process sees them.

Without forwards it checks all instances that run in this network namespace, and with a NAME
in their place that one: it reads back from the kernel what they forward, and takes no other options
of run. With --env-file it checks that file.

JSON, to which fields may be added; the comments are not part of it:
  {\"schema\": 1,                  // another number if fields are renamed or removed
   \"findings\": [{
    \"level\": \"failure\",           // or \"ok\", \"warning\"
    \"subject\": \"firewall\",        // the first word of the line
    \"instance\": \"web\",            // null if what was checked does not run
    \"text\": \"...\",
    \"command\": \"iptables ...\"}]}    // what mends it; null if no command does

Examples:
  Would this work here?
      nodefwd check tcp/80=10.0.0.5:8080

  Why does nothing come through what runs here?
      nodefwd check

  Why does one client get no answer, and does the server?
      nodefwd check --from 192.168.1.7
      nodefwd check --connect

Exit status:
  0  no failure
  1  failures
  2  the input is wrong, and nothing was looked at";

/// Of `status`. A test in status/json.rs keeps the shape of the JSON.
pub const STATUS_NOTES: &str = "\
Shows for each destination
  connections  how many were forwarded to it since these rules were installed, or since
               destinations of the forward were left out or taken in last
  active       how many conntrack entries to it there are now, closed connections included until
               they expire
  unanswered   how many of those entries have had no packet from it: it is down or unreachable,
               refuses in silence, or its replies take another way. Some UDP is one-way, as syslog
  (down)       that it fails, so it gets no new connections; only with NODEFWD_HEALTH
One that is not listed had the connections before the rules were changed; those that run go on.
For each forward
  dropped      how many first packets were dropped because their source may not connect; a client's
               retries count too
For each instance, in the text only if there is something to say
  options      those that differ from the default, as the rules show them
  left out     destinations of a family that get no connections, and why
  invalid      how many packets of forwarded connections were dropped because conntrack found them
               invalid, such as TCP segments out of window after others were lost
All that is counted are first packets, also by the counters that nft shows: none of it is traffic.

JSON, to which fields may be added; the comments are not part of it:
  {\"schema\": 1,                              // another number if fields are renamed or removed
   \"instances\": [{
    \"netns\": null,                            // network namespace, if it is another one
    \"name\": \"web\", \"table\": \"nodefwd-web\",
    \"running\": true,                          // false: it died and has left its table
    \"accepting\": true,                        // new connections; false while draining
    \"reload_failed\": false,                   // true: the rules are those from before
    \"options\": {                              // null if the table has no forwards
      \"src_ranges\": null,                     // or a list; null: all may connect
      \"listen\": \"local\",
      \"balance\": null,                        // null if no forward has several destinations
      \"output\": false, \"masquerade\": true, \"fully_random\": true,
      \"clamp_mss\": false, \"hairpin\": false,
      \"fast_path\": []},                       // the interfaces that it is on
    \"left_out\": [{\"family\": \"ipv6\", \"reason\": \"...\"}],
    \"listen\": [\"192.168.1.1\"],                // addresses
    \"interfaces\": [],                         // none of either: all addresses
    \"owner\": {                                // null if the table has no owner
      \"portid\": 4242,                         // netlink port of its socket
      \"pid\": 4242, \"process\": \"nodefwd\",      // null if it cannot be seen from here
      \"since\": 1700000000},                   // seconds since 1970; null as well
    \"invalid\": 0,
    \"forwarding\": [{                         // for each family that it has forwards of
      \"family\": \"ipv4\",
      \"on\": true, \"reason\": null}],           // false: this host does not forward it, and why
    \"truncated\": false,                       // true: left out, as they are too many
    \"forwards\": [{
      \"protocol\": \"tcp\", \"family\": \"ipv4\", \"ports\": {\"first\": 80, \"last\": 80},
      \"dropped\": 0,
      \"destinations\": [{
        \"to\": {\"address\": \"10.0.0.5\", \"ports\": {\"first\": 8080, \"last\": 8080}},
        \"listed\": true,                       // false: only connections from before go there
        \"connections\": 12,
        \"active\": 3,                         // null if the kernel does not say
        \"unanswered\": 0,                     // null as well
        \"up\": true}]}]}]}                     // null if it is not tried (NODEFWD_HEALTH)

Examples:
  Everything that is forwarded here, once a second:
      nodefwd status --watch

  For the textfile collector of Prometheus' node_exporter, also of the pods on this node:
      nodefwd status --all-namespaces --format prometheus --output nodefwd.prom

  As the readiness probe of a container, which has the container's environment:
      nodefwd status --ready

Exit status:
  0  done; with --ready: the rules are in the kernel and accept connections, which are forwarded
  1  it is not permitted (reading nftables takes CAP_NET_ADMIN too), there is no such instance, or
     with --ready: the rules are not in the kernel, accept no new connections, or forwarding is off
  2  the input is wrong";
