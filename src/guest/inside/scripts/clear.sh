# Removes what a command left. Word: token.
for p in /var/tmp /tmp /run /data/local/tmp; do
    rm -rf "${p:?}/$1"
done
