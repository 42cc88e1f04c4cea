import com.sun.net.httpserver.HttpServer;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.Random;
import java.util.zip.CRC32;

/** A small HTTP server with 100 MiB on its heap. GET / compares them with their checksum and counts the requests. */
public final class Server {
    private static final byte[][] BLOCKS = new byte[100][1 << 20];
    private static long requests;

    private static long checksum() {
        CRC32 crc = new CRC32();
        for (byte[] block : BLOCKS) {
            crc.update(block);
        }
        return crc.getValue();
    }

    public static void main(String[] arguments) throws Exception {
        Random random = new Random(4711);
        for (byte[] block : BLOCKS) {
            random.nextBytes(block);
        }
        long expected = checksum();
        int port = Integer.parseInt(arguments[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 16);
        server.createContext("/", exchange -> {
            String heap = checksum() == expected ? "ok" : "damaged";
            byte[] body = ("request " + ++requests + ", heap " + heap).getBytes(StandardCharsets.UTF_8);
            exchange.getResponseHeaders().set("Connection", "close");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
