# Sends a signal to a command and what it has started. Words: token, signal.
for tries in 1 2 3 4 5 6 7 8 9 10; do
    for p in /var/tmp /tmp /run /data/local/tmp; do
        [ -s "$p/$1/pid" ] || continue
        read -r pid <"$p/$1/pid"
        kill "-$2" "-$pid" 2>/dev/null || kill "-$2" "$pid"
        exit
    done
    sleep 0.1 || sleep 1
done
exit 3
