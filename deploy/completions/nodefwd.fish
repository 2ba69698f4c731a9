# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nodefwd_global_optspecs
    string join \n dest-ips= dest-proto= src-port= dest-port= src-ranges= balance= listen= output= masquerade= fully-random= clamp-mss= hairpin= fast-path= health= health-reset= name= strict= replace= drain= env-file= watch-file= v/verbose q/quiet log-format= h/help V/version
end

function __fish_nodefwd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nodefwd_global_optspecs) -- $cmd 2>/dev/null
    or return 0
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nodefwd_using_subcommand
    set -l cmd (__fish_nodefwd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nodefwd -n "__fish_nodefwd_needs_command" -l dest-ips -d 'Addresses to forward to, IPv4 and IPv6, or names, separated by commas or white space' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l dest-proto -d 'Protocols: tcp, udp, sctp' -r -f -a "tcp\t''
udp\t''
sctp\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l src-port -d 'Ports to forward: a list of ports and ranges' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l dest-port -d 'Ports at the destination: one for all, or one for each of SRC_PORT [default: the same]' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l src-ranges -d 'Sources that may connect, as CIDRs or addresses [default: any source]' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l balance -d 'How a connection is given one of several destinations: random, round-robin, or source, which keeps a client with one destination [default: random]' -r -f -a "random\t''
round-robin\t''
source\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l listen -d 'Which packets to forward: local, those sent to an address of this namespace; any, also those that this host only routes; or a list of addresses and interfaces, those sent to one of these addresses, and those that come in on one of these interfaces for this host [default: local]' -r -f -a "local\t''
any\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l output -d 'Forward connections made on this host itself to its own addresses too, except to loopback addresses [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l masquerade -d 'Let the destination see this host\'s address instead of the client\'s; false needs a route from the destination back through this host [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l fully-random -d 'Give masqueraded connections random source ports; false keeps the client\'s port where it is free [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l clamp-mss -d 'Lower the MSS of forwarded TCP connections to what fits the path MTU, for paths on which ICMP is dropped [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l hairpin -d 'Also forward connections that a destination makes to the forwarded port [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l fast-path -d 'Let established TCP and UDP connections bypass most of what the kernel does with forwarded packets, other programs\' rules too: on the interfaces that carry them (auto), on these, or not at all [default: off]' -r -f -a "off\t''
auto\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l health -d 'Try to connect to each TCP destination of a forward with several once in this time; one that fails three times in a row gets no new connections until it succeeds twice [default: 0, never]' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l health-reset -d 'End the running connections to a destination that fails, so that clients connect again [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l name -d 'The instance\'s name; its table is nodefwd-NAME [default: from the first forward: tcp-80]' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l strict -d 'Fail if a family among the destinations cannot be forwarded, instead of going on with the other one [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l replace -d 'Take the place of a running instance of the same name, which then ends: no connection is refused or broken meanwhile. If none runs, start as usual [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l drain -d 'After a signal accept no new connections, but let running ones go on for at most this time; a second signal ends the wait [default: 0]' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l env-file -d 'A file with variables of this list, one NAME=VALUE a line, as systemd reads an EnvironmentFile. Flags and the environment go before it. HUP reads it again and changes the rules in place' -r -f
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l watch-file -d 'Read that file again as soon as it changes, also by the symbolic links of a Kubernetes volume [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_needs_command" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -s h -l help -d 'Print help'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -s V -l version -d 'Print version'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "run" -d 'Forward until a signal comes (the default)'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "render" -d 'Print the nftables ruleset that `run` would install; changes nothing'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "check" -d 'Check whether `run` would work here, or what runs works, and what prevents it; changes nothing'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "status" -d 'Show the instances in this network namespace, or in all'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "reload" -d 'Have a running instance read its --env-file again, and wait for it'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "version" -d 'Print the version'
complete -c nodefwd -n "__fish_nodefwd_needs_command" -f -a "completions" -d 'Print a script with which a shell completes the command line'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l dest-ips -d 'Addresses to forward to, IPv4 and IPv6, or names, separated by commas or white space' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l dest-proto -d 'Protocols: tcp, udp, sctp' -r -f -a "tcp\t''
udp\t''
sctp\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l src-port -d 'Ports to forward: a list of ports and ranges' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l dest-port -d 'Ports at the destination: one for all, or one for each of SRC_PORT [default: the same]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l src-ranges -d 'Sources that may connect, as CIDRs or addresses [default: any source]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l balance -d 'How a connection is given one of several destinations: random, round-robin, or source, which keeps a client with one destination [default: random]' -r -f -a "random\t''
round-robin\t''
source\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l listen -d 'Which packets to forward: local, those sent to an address of this namespace; any, also those that this host only routes; or a list of addresses and interfaces, those sent to one of these addresses, and those that come in on one of these interfaces for this host [default: local]' -r -f -a "local\t''
any\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l output -d 'Forward connections made on this host itself to its own addresses too, except to loopback addresses [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l masquerade -d 'Let the destination see this host\'s address instead of the client\'s; false needs a route from the destination back through this host [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l fully-random -d 'Give masqueraded connections random source ports; false keeps the client\'s port where it is free [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l clamp-mss -d 'Lower the MSS of forwarded TCP connections to what fits the path MTU, for paths on which ICMP is dropped [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l hairpin -d 'Also forward connections that a destination makes to the forwarded port [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l fast-path -d 'Let established TCP and UDP connections bypass most of what the kernel does with forwarded packets, other programs\' rules too: on the interfaces that carry them (auto), on these, or not at all [default: off]' -r -f -a "off\t''
auto\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l health -d 'Try to connect to each TCP destination of a forward with several once in this time; one that fails three times in a row gets no new connections until it succeeds twice [default: 0, never]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l health-reset -d 'End the running connections to a destination that fails, so that clients connect again [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l name -d 'The instance\'s name; its table is nodefwd-NAME [default: from the first forward: tcp-80]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l strict -d 'Fail if a family among the destinations cannot be forwarded, instead of going on with the other one [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l replace -d 'Take the place of a running instance of the same name, which then ends: no connection is refused or broken meanwhile. If none runs, start as usual [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l drain -d 'After a signal accept no new connections, but let running ones go on for at most this time; a second signal ends the wait [default: 0]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l env-file -d 'A file with variables of this list, one NAME=VALUE a line, as systemd reads an EnvironmentFile. Flags and the environment go before it. HUP reads it again and changes the rules in place' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l watch-file -d 'Read that file again as soon as it changes, also by the symbolic links of a Kubernetes volume [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l dest-ips -d 'Addresses to forward to, IPv4 and IPv6, or names, separated by commas or white space' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l dest-proto -d 'Protocols: tcp, udp, sctp' -r -f -a "tcp\t''
udp\t''
sctp\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l src-port -d 'Ports to forward: a list of ports and ranges' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l dest-port -d 'Ports at the destination: one for all, or one for each of SRC_PORT [default: the same]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l src-ranges -d 'Sources that may connect, as CIDRs or addresses [default: any source]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l balance -d 'How a connection is given one of several destinations: random, round-robin, or source, which keeps a client with one destination [default: random]' -r -f -a "random\t''
round-robin\t''
source\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l listen -d 'Which packets to forward: local, those sent to an address of this namespace; any, also those that this host only routes; or a list of addresses and interfaces, those sent to one of these addresses, and those that come in on one of these interfaces for this host [default: local]' -r -f -a "local\t''
any\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l output -d 'Forward connections made on this host itself to its own addresses too, except to loopback addresses [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l masquerade -d 'Let the destination see this host\'s address instead of the client\'s; false needs a route from the destination back through this host [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l fully-random -d 'Give masqueraded connections random source ports; false keeps the client\'s port where it is free [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l clamp-mss -d 'Lower the MSS of forwarded TCP connections to what fits the path MTU, for paths on which ICMP is dropped [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l hairpin -d 'Also forward connections that a destination makes to the forwarded port [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l fast-path -d 'Let established TCP and UDP connections bypass most of what the kernel does with forwarded packets, other programs\' rules too: on the interfaces that carry them (auto), on these, or not at all [default: off]' -r -f -a "off\t''
auto\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l health -d 'Try to connect to each TCP destination of a forward with several once in this time; one that fails three times in a row gets no new connections until it succeeds twice [default: 0, never]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l health-reset -d 'End the running connections to a destination that fails, so that clients connect again [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l name -d 'The instance\'s name; its table is nodefwd-NAME [default: from the first forward: tcp-80]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l strict -d 'Fail if a family among the destinations cannot be forwarded, instead of going on with the other one [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l replace -d 'Take the place of a running instance of the same name, which then ends: no connection is refused or broken meanwhile. If none runs, start as usual [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l drain -d 'After a signal accept no new connections, but let running ones go on for at most this time; a second signal ends the wait [default: 0]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l env-file -d 'A file with variables of this list, one NAME=VALUE a line, as systemd reads an EnvironmentFile. Flags and the environment go before it. HUP reads it again and changes the rules in place' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l watch-file -d 'Read that file again as soon as it changes, also by the symbolic links of a Kubernetes volume [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand render" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l dest-ips -d 'Addresses to forward to, IPv4 and IPv6, or names, separated by commas or white space' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l dest-proto -d 'Protocols: tcp, udp, sctp' -r -f -a "tcp\t''
udp\t''
sctp\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l src-port -d 'Ports to forward: a list of ports and ranges' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l dest-port -d 'Ports at the destination: one for all, or one for each of SRC_PORT [default: the same]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l src-ranges -d 'Sources that may connect, as CIDRs or addresses [default: any source]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l balance -d 'How a connection is given one of several destinations: random, round-robin, or source, which keeps a client with one destination [default: random]' -r -f -a "random\t''
round-robin\t''
source\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l listen -d 'Which packets to forward: local, those sent to an address of this namespace; any, also those that this host only routes; or a list of addresses and interfaces, those sent to one of these addresses, and those that come in on one of these interfaces for this host [default: local]' -r -f -a "local\t''
any\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l output -d 'Forward connections made on this host itself to its own addresses too, except to loopback addresses [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l masquerade -d 'Let the destination see this host\'s address instead of the client\'s; false needs a route from the destination back through this host [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l fully-random -d 'Give masqueraded connections random source ports; false keeps the client\'s port where it is free [default: true]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l clamp-mss -d 'Lower the MSS of forwarded TCP connections to what fits the path MTU, for paths on which ICMP is dropped [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l hairpin -d 'Also forward connections that a destination makes to the forwarded port [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l fast-path -d 'Let established TCP and UDP connections bypass most of what the kernel does with forwarded packets, other programs\' rules too: on the interfaces that carry them (auto), on these, or not at all [default: off]' -r -f -a "off\t''
auto\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l health -d 'Try to connect to each TCP destination of a forward with several once in this time; one that fails three times in a row gets no new connections until it succeeds twice [default: 0, never]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l health-reset -d 'End the running connections to a destination that fails, so that clients connect again [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l name -d 'The instance\'s name; its table is nodefwd-NAME [default: from the first forward: tcp-80]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l strict -d 'Fail if a family among the destinations cannot be forwarded, instead of going on with the other one [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l replace -d 'Take the place of a running instance of the same name, which then ends: no connection is refused or broken meanwhile. If none runs, start as usual [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l drain -d 'After a signal accept no new connections, but let running ones go on for at most this time; a second signal ends the wait [default: 0]' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l env-file -d 'A file with variables of this list, one NAME=VALUE a line, as systemd reads an EnvironmentFile. Flags and the environment go before it. HUP reads it again and changes the rules in place' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l watch-file -d 'Read that file again as soon as it changes, also by the symbolic links of a Kubernetes volume [default: false]' -r -f -a "true\t''
false\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l from -d 'Follow this client only, with the interface that it comes in on if that is known' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l format -d 'How to write it' -r -f -a "text\t'A line for each, for people'
json\t'For programs'"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -l connect -d 'Connect to the TCP destinations from this host: changes nothing, but their servers notice'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -l format -d 'How to write it' -r -f -a "text\t'An aligned table for people'
json\t'For programs'
prometheus\t'The text exposition format of Prometheus'"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -l output -d 'Write it to this file, which is replaced once all of it is written (rename(2)), instead of standard output' -r -f
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -l ready -d 'Print nothing; exit with 0 if the instance\'s rules are in the kernel and accept connections, which this host forwards, and with 1 and the reason if not'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -l watch -d 'Write it again every second until a signal comes; JSON as one object on each line'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -l all-namespaces -d 'Show the instances in all network namespaces of this host, such as those of its pods: the ones that have a name in /run/netns or a process. Takes root on the host'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand reload" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand reload" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand reload" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand reload" -s h -l help -d 'Print help'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand version" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand version" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand version" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand version" -s h -l help -d 'Print help'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand completions" -l log-format -d 'How the log is written: text, or json, one object on each line [default: text]' -r -f -a "text\t''
json\t''"
complete -c nodefwd -n "__fish_nodefwd_using_subcommand completions" -s v -l verbose -d 'Log more; twice for everything, also of libraries. RUST_LOG=error|warn|info|debug|trace|off overrides this'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand completions" -s q -l quiet -d 'Log warnings and errors only; twice for errors only. Colours appear on a terminal only'
complete -c nodefwd -n "__fish_nodefwd_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'

function __fish_nodefwd_names
    nodefwd -q status 2>/dev/null | string match -rg '^([A-Za-z0-9._-]+): table inet '
end

complete -c nodefwd -n "__fish_nodefwd_using_subcommand status" -f -a "(__fish_nodefwd_names)"
