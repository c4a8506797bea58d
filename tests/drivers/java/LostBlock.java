// Transactions whose server connection may be killed at any point, by a program that goes on behind
// each error: JDBC with autosave=always, autocommit off. Arguments: URL, user, table, first id, how many.
// For each transaction it prints "id committed", "id rolled back" or "id unknown".
// SPDX-License-Identifier: Apache-2.0
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.util.Properties;

public class LostBlock {
    static final int ROWS = 4;

    static Connection connect(String[] a) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", a[1]);
        p.setProperty("password", System.getenv("PGPASSWORD"));
        p.setProperty("autosave", "always");
        Connection c = DriverManager.getConnection(a[0], p);
        c.setAutoCommit(false);
        return c;
    }

    static String transaction(Connection c, String table, int id) {
        for (int i = 0; i < ROWS; i++) {
            try (PreparedStatement s = c.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)")) {
                s.setInt(1, id);
                s.setInt(2, i);
                s.executeUpdate();
            } catch (SQLException e) {
                // a program that looks at nothing goes on
            }
        }
        try {
            c.commit();
            return "committed";
        } catch (SQLException e) {
            String state = e.getSQLState();
            try {
                c.rollback();
            } catch (SQLException again) {
                return "unknown";
            }
            return "08007".equals(state) || "08006".equals(state) ? "unknown" : "rolled back";
        }
    }

    public static void main(String[] a) throws Exception {
        int first = Integer.parseInt(a[3]), count = Integer.parseInt(a[4]);
        Connection c = connect(a);
        for (int id = first; id < first + count; id++) {
            if (!c.isValid(5)) {
                c.close();
                c = connect(a);
            }
            System.out.println(id + " " + transaction(c, a[2], id));
        }
        c.close();
    }
}
