import java.nio.file.*;
import java.security.*;
import java.util.*;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Supplier;

/** Draws from the generators of Java: once at the start, and once more when the file appears. */
public class Draw {
    static Supplier<String> secure(SecureRandom random) {
        return () -> {
            byte[] bytes = new byte[16];
            random.nextBytes(bytes);
            return HexFormat.of().formatHex(bytes);
        };
    }

    public static void main(String[] words) throws Exception {
        Map<String, Supplier<String>> generators = new LinkedHashMap<>();
        generators.put("Java SecureRandom", secure(new SecureRandom()));
        generators.put("Java NativePRNGNonBlocking", secure(SecureRandom.getInstance("NativePRNGNonBlocking")));
        generators.put("Java DRBG", secure(SecureRandom.getInstance("DRBG")));
        generators.put("Java SHA1PRNG", secure(SecureRandom.getInstance("SHA1PRNG")));
        generators.put("Java UUID", () -> UUID.randomUUID().toString());
        Random random = new Random();
        generators.put("Java Random", () -> Long.toHexString(random.nextLong()));
        generators.put("Java ThreadLocalRandom", () -> Long.toHexString(ThreadLocalRandom.current().nextLong()));
        Path out = Path.of(words[0]), next = Path.of(words[0] + ".new");
        generators.values().forEach(Supplier::get);
        while (true) {
            if (Files.exists(Path.of("/run/draw")) && !Files.exists(out)) {
                StringBuilder text = new StringBuilder();
                generators.forEach((name, generator) -> text.append(name + ": " + generator.get() + "\n"));
                Files.writeString(next, text);
                Files.move(next, out);
            }
            Thread.sleep(100);
        }
    }
}
